//! Changes of VirtualServices and DestinationRules in random order under load (design decision D4): every answer is one that
//! the configuration before or after the change allows, and none is refused because of an order. Subsets come, go and are
//! named before they are there; at the end one is removed while it is in use, and never restored.
//!
//! `LATEEN_ORDER_SEED` sets which changes are made; `LATEEN_FULL=1` makes 1,000 of them.

#![allow(clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use e2e::chaos::Random;
use e2e::report::{counted, size};
use e2e::shop::{self, SHOP, WAY, echo, version};
use e2e::{Mesh, manifests, run};
use serde_json::Value;

const DENY: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: test}
spec:
  targetRefs: [{kind: Service, group: \"\", name: shop}]
  action: DENY
  rules: [{to: [{operation: {paths: [\"/closed\"]}}]}]
";

/// Asks over and over, on several connections, until its input ends: begin and end in microseconds, status and version.
const LOAD: &str = "
import http.client, sys, threading, time
end = threading.Event()
lock = threading.Lock()
def now():
    return time.time_ns() // 1000
def ask():
    connection = http.client.HTTPConnection('shop', timeout=30)
    while not end.is_set():
        begun = now()
        try:
            connection.request('GET', '/')
            answer = connection.getresponse()
            answer.read()
            said = '%d %s' % (answer.status, answer.headers.get('x-echo-version'))
        except Exception as error:
            said = '0 %s' % type(error).__name__
            connection.close()
        with lock:
            print(begun, now(), said, flush=True)
        end.wait(0.01)
threads = [threading.Thread(target=ask) for _ in range(6)]
[thread.start() for thread in threads]
sys.stdin.read()
end.set()
[thread.join() for thread in threads]
";

const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];
const SUBSETS: [&str; 4] = ["a", "b", "c", "d"];

/// What is written: the subsets that a VirtualService names, and the versions that a DestinationRule's subsets are.
#[derive(Debug, Clone, Default, PartialEq)]
struct Written {
    routes: Option<BTreeSet<&'static str>>,
    subsets: Option<BTreeMap<&'static str, &'static str>>,
}

impl Written {
    /// The versions that may answer; `None` where a subset is named that is not there.
    fn allows(&self) -> Option<BTreeSet<&'static str>> {
        let Some(routes) = &self.routes else { return Some(VERSIONS.into()) };
        routes.iter().map(|name| self.subsets.as_ref()?.get(name).copied()).collect()
    }

    fn virtual_service(&self, change: usize) -> String {
        let Some(routes) = &self.routes else { return String::from("# none\n") };
        let to: Vec<String> = routes
            .iter()
            .map(|name| format!("{{destination: {{host: shop, subset: {name}}}, weight: 10}}"))
            .collect();
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: shop, namespace: test, annotations: {{change: \"{change}\"}}}}\n\
             spec: {{hosts: [shop], http: [{{route: [{}]}}]}}\n",
            to.join(", ")
        )
    }

    fn destination_rule(&self, change: usize) -> String {
        let Some(subsets) = &self.subsets else { return String::from("# none\n") };
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: shop, namespace: test, annotations: {{change: \"{change}\"}}}}\n\
             spec: {{host: shop, subsets: {}}}\n",
            shop::subsets(subsets.iter().map(|(name, version)| (*name, *version)))
        )
    }
}

/// One random change; whether it is one of the VirtualService.
fn change(written: &mut Written, random: &mut Random) -> bool {
    let is_route = random.within(0, 2) == 0;
    let gone = random.within(0, 12) == 0;
    let some = |random: &mut Random, of: &[&'static str]| {
        let chosen = of.iter().copied().filter(|_| random.within(0, 2) == 0).collect::<BTreeSet<_>>();
        if chosen.is_empty() { of.iter().copied().take(1).collect() } else { chosen }
    };
    if is_route {
        // Mostly what is there, or nearly everything would be held.
        let there: Vec<&'static str> = written.subsets.iter().flat_map(|all| all.keys().copied()).collect();
        let of = if there.is_empty() || random.within(0, 4) == 0 { &SUBSETS[..] } else { &there };
        written.routes = (!gone).then(|| some(random, of));
    } else {
        let one = |random: &mut Random| VERSIONS[random.within(0, 3) as usize % 3];
        let subsets = some(random, &SUBSETS);
        written.subsets = (!gone).then(|| subsets.into_iter().map(|name| (name, one(random))).collect());
    }
    is_route
}

/// A configuration, from when on it may have been in force, and from when on nothing older was.
struct Period {
    begun: u128,
    settled: u128,
    allowed: BTreeSet<&'static str>,
    what: String,
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_micros()
}

/// What ctrl answers on its socket.
fn ctrl(mesh: &Mesh, path: &str) -> Result<Value, String> {
    let socket = mesh.state().join("ctrl/admin.sock");
    let url = format!("http://ctrl{path}");
    let told = run(Command::new("curl").args(["-s", "-m", "5", "--unix-socket"]).arg(socket).arg(url));
    serde_json::from_str(&told.stdout).map_err(|_| told.to_string())
}

/// Waits until ctrl has read a change of an object (or that it is gone) and every proxy has it in force.
#[track_caller]
fn settled(mesh: &Mesh, kind: &str, change: Option<usize>) {
    mesh.eventually("the change is in force", |mesh| {
        let read = ctrl(mesh, &format!("/objects/{kind}?namespace=test&name=shop"))?;
        let said = read.pointer("/0/metadata/annotations/change").and_then(Value::as_str);
        if said != change.map(|number| number.to_string()).as_deref() {
            return Err(format!("ctrl has {said:?}, not {change:?}"));
        }
        let sync = ctrl(mesh, "/sync")?;
        if sync["inForce"] == true { Ok(()) } else { Err(sync.to_string()) }
    });
}

/// The conditions of the VirtualService that hold.
fn conditions(mesh: &Mesh) -> Result<Vec<(String, String)>, String> {
    let read = ctrl(mesh, "/objects/virtualservice?namespace=test&name=shop")?;
    let all = read.pointer("/0/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    Ok(all
        .iter()
        .filter(|one| one["status"] == "True")
        .map(|one| (text(one, "type"), text(one, "message")))
        .collect())
}

struct Load {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Load {
    fn start(mesh: &Mesh) -> Self {
        let output = tempfile::NamedTempFile::new().expect("a temporary file");
        let file: File = output.reopen().expect("the file is there");
        let mut command = mesh.command("test", "client", &["python3", "-c", LOAD]);
        let child = command.stdin(Stdio::piped()).stdout(file).spawn().expect("lateen exec starts");
        let load = Self { child, output };
        mesh.eventually("the load has begun", |_| match load.text().lines().count() {
            0 => Err(String::from("no answer yet")),
            _ => Ok(()),
        });
        load
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.output.path()).expect("the file is there")
    }

    /// Ends it, and says what was answered.
    fn end(mut self) -> Vec<Answer> {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("it can be waited for").success());
        self.text().lines().map(Answer::read).collect()
    }
}

#[derive(Debug)]
struct Answer {
    begun: u128,
    ended: u128,
    status: u16,
    version: String,
}

impl Answer {
    fn read(line: &str) -> Self {
        let parts: Vec<&str> = line.split(' ').collect();
        let [begun, ended, status, version] = parts[..] else { panic!("{line:?}") };
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{line:?}"));
        Self {
            begun: number(begun),
            ended: number(ended),
            status: status.parse().unwrap_or_else(|_| panic!("{line:?}")),
            version: version.to_owned(),
        }
    }

    /// Why no configuration that may have been in force allows it.
    fn wrong(&self, periods: &[Period]) -> Option<String> {
        // The last that was in force for sure before it was asked, and every later one that may have been.
        let first = periods.iter().rposition(|one| one.settled < self.begun).unwrap_or(0);
        let may: Vec<&Period> = periods[first..].iter().take_while(|one| one.begun <= self.ended).collect();
        let right = self.status == 200 && may.iter().any(|one| one.allowed.contains(&*self.version));
        let told = |one: &&Period| {
            let Period { begun, settled, allowed, what } = one;
            format!("{what}, from {begun} to {settled}, allows {allowed:?}")
        };
        (!right).then(|| format!("{self:?} under {:#?}", may.iter().map(told).collect::<Vec<_>>()))
    }
}

fn mesh() -> Mesh {
    let app = [
        manifests::namespace("test", "ambient"),
        manifests::shell("client", "test", "node-1"),
        VERSIONS.map(|name| version(name, &echo(name))).concat(),
        WAY.to_owned(),
        SHOP.to_owned(),
    ];
    Mesh::start(&[("app.yaml", &app.concat()), ("routes.yaml", "# none\n"), ("subsets.yaml", "# none\n")])
}

/// Makes a change, waits until it is in force, and notes what is allowed from when on.
fn make(mesh: &Mesh, written: &Written, is_route: bool, number: usize, periods: &mut Vec<Period>) {
    let begun = now();
    let (file, kind, text, there) = match is_route {
        true => ("routes.yaml", "virtualservice", written.virtual_service(number), written.routes.is_some()),
        false => {
            ("subsets.yaml", "destinationrule", written.destination_rule(number), written.subsets.is_some())
        }
    };
    mesh.apply(file, &text);
    settled(mesh, kind, there.then_some(number));
    // What does not resolve changes nothing.
    let before = periods.last().map(|last| last.allowed.clone()).unwrap_or_default();
    let allowed = written.allows().unwrap_or(before);
    periods.push(Period { begun, settled: now(), allowed, what: format!("change {number}: {written:?}") });
}

#[test]
fn changes_in_any_order_break_nothing() {
    let seed = std::env::var("LATEEN_ORDER_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::try_from(now() % 1_000_000).unwrap_or(1));
    eprintln!("LATEEN_ORDER_SEED={seed}");
    let mut random = Random::new(seed);
    let mesh = mesh();
    let mut written = Written::default();
    let allowed = VERSIONS.into();
    let mut periods = vec![Period { begun: 0, settled: 0, allowed, what: String::from("no rules") }];
    let load = Load::start(&mesh);
    let changes = size(30, 1000);
    let mut held = 0;
    for number in 0..changes {
        let is_route = change(&mut written, &mut random);
        make(&mesh, &written, is_route, number, &mut periods);
        held += usize::from(written.allows().is_none());
    }
    // One subset that is in use goes, and never comes back.
    written.subsets = Some([("a", "v2"), ("b", "v1")].into());
    make(&mesh, &written, false, changes, &mut periods);
    written.routes = Some(["a"].into());
    make(&mesh, &written, true, changes + 1, &mut periods);
    written.subsets = Some([("b", "v1")].into());
    make(&mesh, &written, false, changes + 2, &mut periods);
    assert_eq!(periods.last().expect("there are some").allowed, ["v2"].into());
    denied_while_held(&mesh);
    let answers = load.end();
    let wrong: Vec<String> = answers.iter().filter_map(|answer| answer.wrong(&periods)).collect();
    assert!(wrong.is_empty(), "seed {seed}: {} of {}: {}", wrong.len(), answers.len(), wrong[0]);
    let versions: BTreeSet<&str> = answers.iter().map(|answer| answer.version.as_str()).collect();
    assert!(versions.len() > 1, "all answers are {versions:?}: nothing was tried");
    counted(&format!("{} changes ({held} held), {} answers, none wrong", changes + 3, answers.len()));
}

/// The host is held; a new policy takes effect all the same, and after a crash of ctrl everything is as before.
fn denied_while_held(mesh: &Mesh) {
    let held = |mesh: &Mesh| {
        let all = conditions(mesh)?;
        let held =
            all.iter().find(|(kind, message)| kind == "Held" && message.contains("subset test/shop a"));
        held.map(|_| ()).ok_or_else(|| format!("{all:?}"))
    };
    let status = |path: &str| shop::curl(mesh, "client", &[], &format!("http://shop{path}")).0;
    mesh.eventually("the rules are held", held);
    assert_eq!(status("/closed"), "200");
    mesh.apply("deny.yaml", DENY);
    mesh.eventually("the policy is in force", |_| match status("/closed").as_str() {
        "403" => Ok(()),
        other => Err(other.to_owned()),
    });
    let before = mesh.ctrl();
    before.kill();
    mesh.eventually("another ctrl has told every proxy", |mesh| {
        let again = mesh.processes().into_iter().any(|one| {
            one.pid != before.pid && one.command.split(' ').next().is_some_and(|name| name.ends_with("/ctrl"))
        });
        let sync = ctrl(mesh, "/sync")?;
        // Both agents and the waypoint.
        let clients = sync["clients"].as_array().map_or(0, Vec::len);
        let all = again && clients >= 3 && sync["inForce"] == true;
        if all { held(mesh) } else { Err(sync.to_string()) }
    });
    assert_eq!((status("/closed"), status("/")), ("403".into(), "200".into()));
}
