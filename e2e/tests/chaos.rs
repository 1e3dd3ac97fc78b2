//! Chaos (`make soak`): every part of a mesh is killed, paused, replaced; pods join, leave, come and go; policies change; links delay and
//! lose; and every connection that breaks meanwhile must be owed to something that was done, by `e2e::chaos::cause`.
//!
//! `LATEEN_CHAOS_SECONDS` and `LATEEN_CHAOS_SEED` set how long and what; the seed is printed and gives the same plan again.

#![allow(clippy::panic, reason = "a condition that does not hold fails the test")]

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use e2e::capture::{Capture, MARKER, watchers};
use e2e::chaos::{Done, Event, Fate, Flow, Part, Random, What, Wrong, cause, plan};
use e2e::client::Client;
use e2e::programs::Programs;
use e2e::pulse::{Pulse, Stall};
use e2e::report::{counted, full, not_possible, size};
use e2e::streams::server;
use e2e::traffic::{Seen, Traffic, Work, now};
use e2e::{Mesh, manifests, pause, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const NODES: [u8; 2] = [1, 2];

fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Servers of checked connections. `steady` is enrolled all the time; `moving` joins and leaves.
fn steady() -> String {
    let server = |name, node| manifests::server(name, "steady", node, &server(9000), &[9000]);
    let shell = |name, node| manifests::shell(name, "steady", node);
    manifests::namespace("steady", "ambient")
        + &server("far", "node-2")
        + &server("near", "node-1")
        + &server("barred", "node-2")
        + &shell("one", "node-1")
        + &shell("two", "node-2")
        + &shell("poor", "node-1")
}

fn moving() -> String {
    manifests::server("mover", "moving", "node-2", &server(9000), &[9000])
        + &manifests::shell("roamer", "moving", "node-1")
}

fn mode(ambient: bool) -> String {
    manifests::namespace("moving", if ambient { "ambient" } else { "none" })
}

fn outside() -> String {
    manifests::namespace("outside", "")
        + &manifests::server("plain", "outside", "node-2", &server(9000), &[9000])
        + &manifests::shell("stranger", "outside", "node-1")
}

/// The pod that comes and goes.
fn fleeting() -> String {
    manifests::server("fleeting", "steady", "node-2", &server(9000), &[9000])
}

/// The policy of the pod that may be refused.
fn policy(deny: bool) -> String {
    let (name, action) = if deny { ("barred", "DENY") } else { ("open", "ALLOW") };
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  namespace: steady\n\
         spec:\n  selector:\n    matchLabels:\n      app: barred\n  action: {action}\n  rules:\n  - {{}}\n"
    )
}

/// One pod's traffic, and what each of its connections has to do with what is done, by the beginning of the target.
struct Talk {
    traffic: Traffic,
    flows: Vec<(String, Flow)>,
}

impl Talk {
    fn start(mesh: &Mesh, at: (&str, &str), marked: bool, targets: &[(&str, Flow)]) -> Self {
        let work = Work { streams: targets.len() * size(5, 10), every: 300, requests: 10, marked };
        let names: Vec<String> = targets.iter().map(|target| target.0.to_owned()).collect();
        let flows = targets.iter().map(|(name, flow)| ((*name).to_owned(), *flow)).collect();
        Self { traffic: Traffic::start(mesh, at.0, at.1, work, &names), flows }
    }

    fn flow(&self, target: &str) -> Flow {
        self.flows.iter().find(|(name, _)| name == target).expect("a target of ours").1
    }
}

/// Traffic between pods of every kind.
fn talks(mesh: &Mesh) -> Vec<Talk> {
    let v6 = |namespace, pod| format!("[{}]:9000", mesh.address(namespace, pod, true));
    let (far, near, plain, mover) =
        (v6("steady", "far"), v6("steady", "near"), v6("outside", "plain"), v6("moving", "mover"));
    let carried = |nodes, fate| Flow { nodes, crosses: true, fate };
    let both = |fate| carried([true, true], fate);
    let across = both(Fate::Steady);
    let within = |nodes| Flow { nodes, crosses: false, fate: Fate::Steady };
    let second = |fate| carried([false, true], fate);
    vec![
        Talk::start(
            mesh,
            ("steady", "one"),
            true,
            &[("far:9000", across), (&far, across), ("near:9000", within([true, false]))],
        ),
        Talk::start(
            mesh,
            ("steady", "two"),
            true,
            &[("near:9000", across), (&near, across), ("far:9000", within([false, true]))],
        ),
        // What comes and goes, and what is refused now and then: it must not be said in the clear either.
        Talk::start(
            mesh,
            ("steady", "poor"),
            true,
            &[("fleeting:9000", both(Fate::Fleeting)), ("barred:9000", both(Fate::Barred))],
        ),
        Talk::start(
            mesh,
            ("moving", "roamer"),
            false,
            &[
                ("mover:9000", both(Fate::Moving)),
                (&mover, both(Fate::Moving)),
                ("far.steady:9000", both(Fate::Moving)),
                (&plain, carried([true, false], Fate::Moving)),
            ],
        ),
        Talk::start(
            mesh,
            ("outside", "stranger"),
            false,
            &[
                ("far.steady:9000", second(Fate::Steady)),
                ("mover.moving:9000", second(Fate::Moving)),
                (&plain, carried(NOBODY, Fate::Steady)),
            ],
        ),
    ]
}

/// What no proxy carries: where that is slow, the machine is.
const NOBODY: [bool; 2] = [false; 2];

/// A part's process, if it runs at this moment; the youngest where two do.
fn process(mesh: &Mesh, part: Part) -> Option<i32> {
    let all = mesh.processes();
    let redirect = |node: u8| {
        let wanted = format!("--node node-{node} ");
        let is = |command: &str| command.contains("node-agent redirect ") && command.contains(&wanted);
        all.iter().filter(move |process| is(&process.command)).map(|process| process.pid).max()
    };
    match part {
        Part::Ctrl => {
            let is = |command: &str| command.split(' ').next().is_some_and(|path| path.ends_with("/ctrl"));
            all.iter().find(|process| is(&process.command)).map(|process| process.pid)
        }
        Part::Redirect(node) => redirect(node),
        Part::Proxy(node) => {
            let parent = redirect(node)?;
            let own = all.iter().filter(|process| process.parent == parent);
            own.filter(|process| process.command.ends_with("node-agent proxy"))
                .map(|process| process.pid)
                .max()
        }
    }
}

fn parts() -> Vec<Part> {
    let agents = NODES.map(|node| [Part::Redirect(node), Part::Proxy(node)]);
    std::iter::once(Part::Ctrl).chain(agents.into_iter().flatten()).collect()
}

/// A signal; `false` where the process has just ended.
fn signal(pid: i32, signal: Signal) -> bool {
    kill(Pid::from_raw(pid), signal).is_ok()
}

/// The delaying and losing ends of both links.
struct Links([Option<Client>; 2]);

impl Links {
    fn start(mesh: &Mesh, seed: u64) -> Self {
        Self(NODES.map(|node| {
            let other = 3 - node;
            let networks = [format!("10.244.{other}.0/24"), format!("fd00:10:244:{other}::/64")];
            let seed = (seed + u64::from(node)).to_string();
            let arguments = [seed.as_str(), &networks[0], &networks[1]];
            let watch = format!("watch-{node}");
            match Client::start_privileged("shim", mesh, "kube-system", &watch, &arguments) {
                Ok(client) => Some(client),
                Err(why) => {
                    not_possible("chaos: delay and loss", &why);
                    None
                }
            }
        }))
    }

    /// Whether it could be done.
    fn set(&mut self, node: u8, delay: u64, loss: u64) -> bool {
        match &mut self.0[usize::from(node) - 1] {
            Some(client) => {
                client.say(&format!("{delay} {loss}"));
                true
            }
            None => false,
        }
    }

    /// Packets that went through them, and that were lost.
    fn finish(self) -> (u64, u64) {
        let ends = self.0.into_iter().flatten().map(Client::finish);
        ends.fold((0, 0), |sums, told| {
            let told: Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{told}: {error}"));
            let number = |name: &str| told[name].as_u64().unwrap_or_default();
            (sums.0 + number("packets"), sums.1 + number("lost"))
        })
    }
}

/// How often what went wrong is fetched: the programs in the pods keep little.
const LOOK: Duration = Duration::from_secs(20);

/// For how long the cause of a trouble may be unknown yet: what was done is noted when it is over.
const KNOWN: Duration = Duration::from_secs(40);

/// What went wrong so far without a cause.
fn look(talks: &mut [Talk], done: &[Done], stalls: &[Stall]) -> Vec<String> {
    let until = now().saturating_sub(KNOWN.as_millis().try_into().expect("a minute"));
    let seen: Vec<Seen> = talks.iter_mut().map(|talk| talk.traffic.report().before(until)).collect();
    judge(talks, &seen, done, stalls, &mut BTreeMap::new())
}

/// Does what is planned, and keeps a record of it.
struct Chaos<'a> {
    mesh: &'a Mesh,
    programs: &'a Programs,
    links: Links,
    pulse: Pulse,
    done: Vec<Done>,
    /// What is to be put right again, when, and what of `done` it ends.
    later: Vec<(Instant, Later, usize)>,
    /// Upgrades that run.
    upgrades: Vec<(usize, Receiver<Result<(), String>>)>,
    /// What could not be done because the part did not run at that moment, and upgrades that were refused.
    missed: BTreeMap<String, u64>,
    ambient: bool,
    denied: bool,
    there: bool,
}

enum Later {
    Continue(i32),
    Well(u8),
    MakeAgain,
}

impl Chaos<'_> {
    /// Everything of the plan at its time, until something goes wrong without a cause: the logs of the parts tell of the
    /// last minutes only, and what happened there is to be found in them.
    fn run(&mut self, events: &[Event], talks: &mut [Talk]) {
        let begun = Instant::now();
        let mut looked = begun;
        for event in events {
            let due = begun + Duration::from_millis(event.at);
            while Instant::now() < due {
                self.put_right(Instant::now());
                pause();
            }
            eprintln!("{event}");
            self.act(event.what);
            if looked.elapsed() > LOOK {
                if !look(talks, &self.done, &self.pulse.stalls()).is_empty() {
                    eprintln!("            trouble without a cause: ends here");
                    break;
                }
                looked = Instant::now();
            }
        }
        while !self.later.is_empty() || !self.upgrades.is_empty() {
            self.put_right(Instant::now());
            pause();
        }
        // In the end all are in the mesh, nobody is refused.
        if !self.ambient {
            self.act(What::Label);
        }
        if self.denied {
            self.act(What::Policy);
        }
    }

    /// Notes what is being done since `begun`, a moment before: what it causes may be seen before it is noted.
    fn note(&mut self, what: What, begun: u64) -> usize {
        self.done.push(Done { what, begun, ended: now() });
        self.done.len() - 1
    }

    fn miss(&mut self, what: &str) {
        eprintln!("            not done: {what}");
        *self.missed.entry(what.to_owned()).or_default() += 1;
    }

    fn act(&mut self, what: What) {
        let begun = now();
        let send = |part, which| process(self.mesh, part).filter(|pid| signal(*pid, which));
        match what {
            What::Kill(part) => match send(part, Signal::SIGKILL) {
                Some(_) => drop(self.note(what, begun)),
                None => self.miss(&what.kind()),
            },
            What::Term(part) => match send(part, Signal::SIGTERM) {
                Some(_) => drop(self.note(what, begun)),
                None => self.miss(&what.kind()),
            },
            What::Replace(node) => match send(Part::Redirect(node), Signal::SIGHUP) {
                Some(_) => drop(self.note(what, begun)),
                None => self.miss(&what.kind()),
            },
            What::Pause(part, time) => match send(part, Signal::SIGSTOP) {
                Some(pid) => self.then(what, begun, Later::Continue(pid), time),
                None => self.miss(&what.kind()),
            },
            What::Upgrade => self.upgrade(),
            What::Label => {
                self.ambient = !self.ambient;
                self.mesh.apply("mode.yaml", &mode(self.ambient));
                self.note(what, begun);
            }
            What::Policy => {
                self.denied = !self.denied;
                self.mesh.apply("policy.yaml", &policy(self.denied));
                self.note(what, begun);
            }
            What::Recreate if self.there => {
                self.there = false;
                self.mesh.remove("fleeting.yaml");
                self.then(what, begun, Later::MakeAgain, 2000);
            }
            What::Recreate => self.miss(&what.kind()),
            What::Link { node, delay, loss, time } => {
                if self.links.set(node, delay, loss) {
                    self.then(what, begun, Later::Well(node), time);
                } else {
                    self.miss(&what.kind());
                }
            }
        }
    }

    fn then(&mut self, what: What, begun: u64, later: Later, time: u64) {
        let done = self.note(what, begun);
        self.later.push((Instant::now() + Duration::from_millis(time), later, done));
    }

    fn upgrade(&mut self) {
        let done = self.note(What::Upgrade, now());
        let mut command = Command::new(self.programs.lateen());
        command.args(["upgrade", "--mesh", self.mesh.name()]);
        let (sender, outcome) = sync_channel(1);
        std::thread::spawn(move || {
            let outcome = run(&mut command);
            // Nobody listens any more where the test has failed.
            let _ = sender.send(if outcome.ok() { Ok(()) } else { Err(outcome.to_string()) });
        });
        self.upgrades.push((done, outcome));
    }

    /// Ends what is due to end.
    fn put_right(&mut self, now_is: Instant) {
        for (_, later, done) in self.later.extract_if(.., |(due, _, _)| *due <= now_is) {
            match later {
                Later::Continue(pid) => drop(signal(pid, Signal::SIGCONT)),
                Later::Well(node) => drop(self.links.set(node, 0, 0)),
                Later::MakeAgain => {
                    self.mesh.apply("fleeting.yaml", &fleeting());
                    self.there = true;
                }
            }
            self.done[done].ended = now();
        }
        let mut refused = Vec::new();
        self.upgrades.retain(|(done, outcome)| match outcome.try_recv() {
            Ok(outcome) => {
                self.done[*done].ended = now();
                refused.extend(outcome.err());
                false
            }
            Err(_) => true,
        });
        for why in refused {
            eprintln!("            upgrade refused: {why}");
            self.miss("upgrade (refused)");
        }
    }
}

/// What of the troubles has no cause; counts those that have, by it.
fn judge(
    talks: &[Talk],
    seen: &[Seen],
    done: &[Done],
    stalls: &[Stall],
    owed: &mut BTreeMap<String, u64>,
) -> Vec<String> {
    let mut defects = Vec::new();
    let stalls = slow_machine(talks, seen, done, stalls);
    for (talk, seen) in talks.iter().zip(seen) {
        let kinds = [(Wrong::Broken, &seen.broken), (Wrong::Failed, &seen.failed), (Wrong::Slow, &seen.slow)];
        for (wrong, troubles) in kinds {
            for trouble in troubles {
                match cause(done, talk.flow(&trouble.target), wrong, trouble) {
                    Some(done) => {
                        *owed.entry(format!("{wrong:?} by {}", done.what.kind())).or_default() += 1;
                    }
                    None if wrong == Wrong::Slow
                        && stalls.iter().any(|stall| stall.during(trouble.begun, trouble.ended)) =>
                    {
                        *owed.entry("Slow by the machine".to_owned()).or_default() += 1;
                    }
                    None => defects.push(format!("{} {wrong:?} {trouble}", talk.traffic.pod)),
                }
            }
        }
        assert_eq!(seen.untold + seen.skipped, 0, "{}: more than there is room for", talk.traffic.pod);
    }
    defects
}

/// When the machine stood still, or was so slow that even what no part of the mesh carries was, though its way was well.
fn slow_machine(talks: &[Talk], seen: &[Seen], done: &[Done], stalls: &[Stall]) -> Vec<Stall> {
    let slow = talks.iter().zip(seen).flat_map(|(talk, seen)| seen.slow.iter().map(move |slow| (talk, slow)));
    let uncarried = slow.filter(|(talk, slow)| {
        let flow = talk.flow(&slow.target);
        flow.nodes == NOBODY && cause(done, flow, Wrong::Slow, slow).is_none()
    });
    let uncarried = uncarried.map(|(_, slow)| Stall { begun: slow.begun, ended: slow.ended });
    uncarried.chain(stalls.iter().copied()).collect()
}

/// What was done around a moment, for who looks for the cause.
fn around(done: &[Done], defects: &[String]) -> Vec<String> {
    let moment = |text: &String| text.split("..").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    let Some(at) = defects.first().and_then(moment) else { return Vec::new() };
    let near = done.iter().filter(|done| done.ended + 20_000 > at && done.begun < at + 2000);
    near.map(|done| format!("{}..{} {:?}", done.begun, done.ended, done.what)).collect()
}

/// Memory in KiB and descriptors of a process.
fn held(pid: i32) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or_default();
    (memory, std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count))
}

/// Of both proxies.
fn held_by_proxies(mesh: &Mesh) -> Vec<(u64, usize)> {
    NODES.iter().filter_map(|node| process(mesh, Part::Proxy(*node))).map(held).collect()
}

/// Connections in the tables of both agents.
fn in_tables(mesh: &Mesh) -> Result<usize, String> {
    let of = |node: u8| {
        let agent = format!("node-agent/node-{node}");
        let ask = ["curl", "-sS", "-m", "10", "http://127.0.0.1:15000/config_dump"];
        let page = mesh.exec("kube-system", &agent, &ask);
        let dump: Value = serde_json::from_str(&page.stdout).map_err(|error| format!("{error}: {page}"))?;
        let pods = dump["workloadState"].as_object().ok_or("no workloadState")?;
        let count = |pod: &Value, way: &str| pod["connections"][way].as_array().map_or(0, Vec::len);
        Ok::<_, String>(
            pods.values().map(|pod| count(pod, "inbound") + count(pod, "outbound")).sum::<usize>(),
        )
    };
    Ok(of(1)? + of(2)?)
}

/// How many processes of each part run.
fn running(mesh: &Mesh) -> Vec<usize> {
    let all = mesh.processes();
    let count = |is: fn(&str) -> bool| all.iter().filter(|process| is(&process.command)).count();
    vec![
        count(|command| command.split(' ').next().is_some_and(|path| path.ends_with("/ctrl"))),
        count(|command| command.contains("node-agent redirect ")),
        count(|command| command.ends_with("node-agent proxy")),
    ]
}

/// The capture sees what it is there to see: the marker, said from outside the mesh to outside.
fn try_capture(mesh: &Mesh) {
    let capture = Capture::start(mesh);
    let plain = mesh.address("outside", "plain", false);
    let say = format!("exec 3<>/dev/tcp/{plain}/9000; echo {MARKER} >&3; head -n 1 <&3");
    let said = mesh.exec("outside", "stranger", &["bash", "-c", &say]);
    assert!(said.stdout.contains(MARKER), "{said}");
    let (_, marked) = capture.finish();
    assert!(marked > 0, "what is said in plain is not seen, so this capture proves nothing");
}

/// Once nothing is done any more: all that is new is answered, at once.
fn calm(mesh: &Mesh, talks: &mut [Talk]) {
    mesh.eventually("all parts run", |mesh| {
        let missing: Vec<_> = parts().into_iter().filter(|part| process(mesh, *part).is_none()).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });
    let since = Instant::now();
    // Until ten seconds have passed in which nothing went wrong anywhere, not even for those who may be refused.
    let mut wrong: Vec<usize> = Vec::new();
    let mut quiet = Instant::now();
    mesh.within(Duration::from_secs(60), "ten seconds without any trouble", |_| {
        let seen = talks.iter_mut().map(|talk| talk.traffic.report());
        let now: Vec<usize> = seen.map(|seen| seen.broken.len() + seen.failed.len()).collect();
        if now != wrong {
            (wrong, quiet) = (now, Instant::now());
        }
        if quiet.elapsed() > Duration::from_secs(10) { Ok(()) } else { Err(format!("{wrong:?}")) }
    });
    eprintln!("calm {:?} after the last event", since.elapsed() - Duration::from_secs(10));
}

/// After the last connection has ended nothing is left of it.
fn nothing_left(mesh: &Mesh, before: &[(u64, usize)], was: &[usize]) -> Vec<(u64, usize)> {
    mesh.within(Duration::from_secs(60), "no connection is left in a table", |mesh| match in_tables(mesh)? {
        0 => Ok(()),
        left => Err(format!("{left} are")),
    });
    mesh.within(Duration::from_secs(60), "every process that was replaced has ended", |mesh| {
        let now = running(mesh);
        if now == was { Ok(()) } else { Err(format!("{now:?}, {was:?} at first")) }
    });
    let mut after = Vec::new();
    // Tunnels that nobody uses stay open for a while.
    mesh.within(Duration::from_secs(90), "descriptors and memory are given back", |mesh| {
        after = held_by_proxies(mesh);
        let given_back = after.len() == before.len()
            && after.iter().zip(before).all(|(now, was)| now.0 < was.0 + (24 << 10) && now.1 <= was.1 + 24);
        if given_back { Ok(()) } else { Err(format!("{after:?}, {before:?} at first (KiB, descriptors)")) }
    });
    after
}

#[test]
fn nothing_is_lost_in_chaos() {
    let time = setting("LATEEN_CHAOS_SECONDS").unwrap_or(size(60, 600));
    let chosen = setting("LATEEN_CHAOS_SEED");
    // In its short form always the same, elsewhere another each time.
    let any = || {
        if full() || setting("LATEEN_CHAOS_SECONDS").is_some() {
            Random::new(now()).within(0, 1_000_000)
        } else {
            1
        }
    };
    let seed = chosen.unwrap_or_else(any);
    let again = json!({"LATEEN_CHAOS_SEED": seed, "LATEEN_CHAOS_SECONDS": time});
    eprintln!("chaos: {again}; the same again: make soak SEED={seed} SECONDS={time}");
    let events = plan(seed, time * 1000);

    let programs = Programs::linked();
    let (app, watch) = (steady() + &moving(), watchers());
    let files = [
        ("app.yaml", app),
        ("mode.yaml", mode(true)),
        ("outside.yaml", outside()),
        ("fleeting.yaml", fleeting()),
        ("policy.yaml", policy(false)),
        ("watch.yaml", watch),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let mesh = Mesh::start_by(programs.lateen(), &files, &[]);
    try_capture(&mesh);
    let capture = Capture::start(&mesh);
    let links = Links::start(&mesh, seed);
    let (before, was) = (held_by_proxies(&mesh), running(&mesh));
    let mut talks = talks(&mesh);

    let mut chaos = Chaos {
        mesh: &mesh,
        programs: &programs,
        links,
        pulse: Pulse::start(),
        done: Vec::new(),
        later: Vec::new(),
        upgrades: Vec::new(),
        missed: BTreeMap::new(),
        ambient: true,
        denied: false,
        there: true,
    };
    chaos.run(&events, &mut talks);
    calm(&mesh, &mut talks);
    let Chaos { links, done, missed, pulse, .. } = chaos;
    let mut seen = Vec::new();
    let mut flows = Vec::new();
    for mut talk in talks {
        // The ends are judged like the rest.
        seen.push(talk.traffic.report().clone());
        flows.push(talk);
    }
    let mut owed = BTreeMap::new();
    let defects = judge(&flows, &seen, &done, &pulse.stalls(), &mut owed);
    finish(flows, &seen);
    let (packets, marked) = capture.finish();
    let (through, lost) = links.finish();
    let mut counts = BTreeMap::<String, u64>::new();
    for done in &done {
        *counts.entry(done.what.kind()).or_default() += 1;
    }
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let most = |of: fn(&Seen) -> u64| seen.iter().map(of).max().unwrap_or_default();
    counted(&format!(
        "{time} s of chaos, seed {seed}: {counts:?}, not possible at the moment: {missed:?}; {} messages on {} long connections ({} MB), {} \
         requests; owed to what was done: {owed:?}; without a cause: {}; slowest message {} ms, request {} ms; {packets} packets on the \
         nodes, {marked} in the clear; {through} delayed, {lost} lost",
        sum(|seen| seen.messages),
        sum(|seen| seen.opened),
        sum(|seen| seen.bytes) >> 20,
        sum(|seen| seen.requests),
        defects.len(),
        most(|seen| seen.slowest_message),
        most(|seen| seen.slowest_request),
    ));
    let shown = &defects[..defects.len().min(20)];
    assert!(
        defects.is_empty(),
        "{shown:#?}, around it was done {:#?}; {marked} of {packets} packets in the clear",
        around(&done, &defects)
    );
    assert_eq!(marked, 0, "of {packets} packets on the nodes");
    let after = nothing_left(&mesh, &before, &was);
    counted(&format!("memory (KiB) and descriptors of the proxies: {before:?} before, {after:?} after"));
}

/// Ends all traffic in order; nothing may go wrong at the very end.
fn finish(talks: Vec<Talk>, seen: &[Seen]) {
    for (talk, seen) in talks.into_iter().zip(seen) {
        let pod = talk.traffic.pod.clone();
        let last = talk.traffic.finish();
        let more = (last.broken.len() - seen.broken.len(), last.failed.len() - seen.failed.len());
        assert_eq!(more, (0, 0), "{pod} at its end: {:?} {:?}", last.broken.last(), last.failed.last());
    }
}
