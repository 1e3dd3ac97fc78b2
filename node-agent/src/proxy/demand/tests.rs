//! The table against the histories that matter: asked, answered, gone, not there, too much, forgotten.

mod istiod;

use std::collections::HashSet;

use prost::Message;
use proto::type_url::ADDRESS;
use proto::workload::{self as wire, address::Type};
use xds::convert::Decoder;
use xds::delta::subscriber::Received;

use super::table::{MAX_ABSENT, MAX_KEYS, MAX_OF_POD};
use super::*;

const IDLE: Duration = Duration::from_secs(60);

/// A table, the mesh that it is about, and the time.
struct Bed {
    table: Table,
    mesh: Mesh,
    decoder: Decoder,
    now: Instant,
    connected: bool,
}

impl Bed {
    fn new() -> Self {
        Self {
            table: Table::default(),
            mesh: Mesh::new("".into(), Some("here".into())),
            decoder: Decoder::default(),
            now: Instant::now(),
            connected: true,
        }
    }

    fn look(&mut self, key: &Key) -> bool {
        self.look_as("pod", key)
    }

    fn look_as(&mut self, pod: &str, key: &Key) -> bool {
        let seen = match key {
            Key::At(address) => match self.mesh.service_at(address, "ns") {
                Some(service) if self.table.is_part(&service.key) => Seen::Part,
                Some(_) => Seen::Whole,
                None if self.mesh.workload_at(address).is_some() => Seen::Whole,
                None => Seen::Nothing,
            },
            Key::Named(_) => Seen::Nothing,
        };
        self.table.look(key, seen, &pod.into(), self.now, self.connected)
    }

    /// What was asked for since the last time.
    fn asked(&mut self) -> Vec<String> {
        self.table.take_wish().ask.iter().map(ToString::to_string).collect()
    }

    /// What was let go of since the last time.
    fn released(&mut self) -> Vec<String> {
        let wish = self.table.take_wish();
        assert!(wish.ask.is_empty(), "{wish:?}");
        wish.release.iter().map(ToString::to_string).collect()
    }

    /// The controller says something.
    fn hear(&mut self, resources: Vec<(String, Type)>, removed: &[&str], more: bool, ours: bool) {
        let mut updates: Vec<Update> =
            removed.iter().filter_map(|name| self.decoder.removal(ADDRESS, &(*name).into())).collect();
        let mut received = Vec::new();
        for (name, address) in resources {
            let name = Str::from(name);
            let value: bytes::Bytes = wire::Address { r#type: Some(address) }.encode_to_vec().into();
            updates.push(self.decoder.decode(ADDRESS, &name, value.clone()).unwrap());
            received.push(Received { name, version: "1".into(), value, replaces: false });
        }
        let delivery = Delivery {
            type_url: ADDRESS.into(),
            revision: String::new(),
            resources: received,
            removed: removed.iter().map(|name| (*name).into()).collect(),
            more,
            ours,
        };
        self.table.begin(&delivery);
        self.table.note(&self.mesh, &updates);
        for update in updates {
            self.mesh.apply(update);
        }
        self.table.end(&delivery, self.now);
    }

    /// A pod asks for so many services, one after the other, and the controller knows each.
    fn ask_for_services(&mut self, asker: &str, count: usize) {
        let mut released = HashSet::new();
        for number in 0..count {
            self.now += Duration::from_micros(1);
            let name = format!("ns/{number}.x");
            assert!(!self.look_as(asker, &Key::Named(name.as_str().into())));
            let (_, mut there) = service("s", 1);
            if let Type::Service(service) = &mut there {
                service.hostname = format!("{number}.x");
                service.addresses.clear();
            }
            self.hear(vec![(name, there)], &[], false, true);
            released.extend(self.table.take_wish().release);
        }
        assert!(!released.contains("p"), "what a connection uses was let go of");
    }

    fn sweep(&mut self, uses: &Uses) -> Vec<String> {
        let gone = self.table.sweep(&self.mesh, uses, self.now, IDLE);
        for name in &gone {
            let update = Update::RemoveAddress(name.clone());
            self.table.note(&self.mesh, std::slice::from_ref(&update));
            self.mesh.apply(update);
        }
        let mut gone: Vec<String> = gone.iter().map(ToString::to_string).collect();
        gone.sort();
        gone
    }
}

fn at(ip: &str) -> Key {
    Key::At(NetworkAddress::new("".into(), ip.parse().unwrap()))
}

fn pod(name: &str, last: u8, node: &str, of: &[&str]) -> (String, Type) {
    let services = of.iter().map(|host| (format!("ns/{host}"), wire::PortList::default())).collect();
    let workload = wire::Workload {
        uid: name.to_owned(),
        name: name.to_owned(),
        namespace: "ns".to_owned(),
        addresses: vec![vec![10, 0, 0, last].into()],
        node: node.to_owned(),
        services,
        ..Default::default()
    };
    (name.to_owned(), Type::Workload(workload))
}

fn service(host: &str, last: u8) -> (String, Type) {
    let address =
        wire::NetworkAddress { address: vec![10, 96, 0, last].into(), ..wire::NetworkAddress::default() };
    let service = wire::Service {
        name: "s".to_owned(),
        namespace: "ns".to_owned(),
        hostname: host.to_owned(),
        addresses: vec![address],
        ..Default::default()
    };
    (format!("ns/{host}"), Type::Service(service))
}

#[test]
fn texts_are_read_as_they_are_written() {
    for text in ["/10.0.0.1", "net/fd00::1", "c//Pod/ns/name", "ns/s.ns.svc.x", "@host/*.example.com"] {
        assert_eq!(&*Key::read(&text.into()).text(), text);
    }
    assert_eq!(Key::read(&"/10.0.0.1".into()), at("10.0.0.1"));
}

#[test]
fn an_address_is_asked_for_once_and_known_when_it_is_told() {
    let mut bed = Bed::new();
    let address = at("10.0.0.1");
    assert!(!bed.look(&address));
    assert!(!bed.look_as("other", &address));
    assert_eq!(bed.asked(), ["/10.0.0.1"]);
    bed.hear(vec![pod("p", 1, "there", &[])], &[], false, true);
    assert!(bed.look(&address));
    // It goes, and another one may have its address: that has to be asked.
    bed.hear(vec![], &["p"], false, true);
    assert!(!bed.look(&address));
    assert_eq!(bed.asked(), ["/10.0.0.1"]);
    bed.hear(vec![], &["/10.0.0.1"], false, true);
    assert!(bed.look(&address));
    assert_eq!(bed.asked(), Vec::<String>::new());
    // Ours tells by itself when there is something.
    bed.hear(vec![pod("q", 1, "there", &[])], &[], false, true);
    assert!(bed.look(&address));
}

#[test]
fn what_is_not_there_counts_for_a_short_time_unless_the_controller_tells() {
    for ours in [true, false] {
        let mut bed = Bed::new();
        assert!(!bed.look(&at("10.0.0.1")));
        bed.hear(vec![], &["/10.0.0.1"], false, ours);
        bed.asked();
        assert!(bed.look(&at("10.0.0.1")));
        bed.now += Duration::from_secs(3);
        assert_eq!(bed.look(&at("10.0.0.1")), ours);
        // Without a controller nobody knows better.
        bed.hear(vec![], &["/10.0.0.1"], false, ours);
        bed.now += Duration::from_secs(3);
        bed.connected = false;
        assert!(bed.look(&at("10.0.0.1")));
    }
}

#[test]
fn a_service_is_known_when_all_its_endpoints_are() {
    let mut bed = Bed::new();
    let vip = at("10.96.0.1");
    assert!(!bed.look(&vip));
    bed.hear(vec![service("s.x", 1)], &[], true, true);
    assert!(!bed.look(&vip), "its endpoints are still to come");
    assert!(!bed.table.is_whole());
    bed.hear(vec![pod("p", 1, "there", &["s.x"])], &[], false, true);
    assert!(bed.look(&vip));
    // An endpoint is known without having been asked for, and is from now on.
    bed.asked();
    assert!(bed.look(&at("10.0.0.1")));
    assert_eq!(bed.asked(), ["/10.0.0.1"]);
}

#[test]
fn what_nobody_answers_is_asked_for_again_and_told_once() {
    let mut bed = Bed::new();
    let address = at("10.0.0.1");
    for _ in 0..100 {
        assert!(!bed.look(&address));
        bed.now += Duration::from_secs(2);
    }
    // The controller was not listening all the while.
    assert_eq!(bed.asked(), ["/10.0.0.1"]);
    assert!(!bed.look(&address));
    assert_eq!(bed.asked(), ["/10.0.0.1"]);
}

#[test]
fn one_pod_cannot_take_all_questions() {
    let mut bed = Bed::new();
    for number in 0..2 * MAX_OF_POD {
        let ip = format!("10.1.{}.{}", number / 256, number % 256);
        assert!(!bed.look_as("greedy", &at(&ip)));
    }
    assert_eq!(bed.asked().len(), MAX_OF_POD);
    assert_eq!(bed.table.counts().limited, MAX_OF_POD as u64);
    assert!(!bed.look_as("other", &at("10.2.0.1")));
    assert_eq!(bed.asked(), ["/10.2.0.1"]);
    // An answer makes room.
    bed.hear(vec![], &["/10.1.0.0"], false, true);
    assert!(!bed.look_as("greedy", &at("10.1.1.255")));
    assert_eq!(bed.asked(), ["/10.1.1.255"]);
}

#[test]
fn what_is_not_there_takes_no_more_than_its_share() {
    let mut bed = Bed::new();
    bed.hear(vec![], &[], false, true);
    for number in 0..MAX_ABSENT + 5 {
        let ip = format!("10.{}.{}.1", 1 + number / 256, number % 256);
        assert!(!bed.look(&at(&ip)));
        bed.asked();
        bed.hear(vec![], &[&format!("/{ip}")], false, true);
    }
    // Two thirds of it for one that is alone.
    let counts = bed.table.counts();
    assert_eq!((counts.absent, counts.keys, counts.unanswered), (2730, 2730, 0));
    assert_eq!(counts.absent_hits, MAX_ABSENT as u64 + 5 - 2730);
    // Another pod's first answer does not go for it.
    let other = at("10.200.0.1");
    assert!(!bed.look_as("other", &other));
    bed.hear(vec![], &["/10.200.0.1"], false, true);
    for number in 0..50 {
        let ip = format!("10.100.0.{number}");
        assert!(!bed.look(&at(&ip)));
        bed.hear(vec![], &[&format!("/{ip}")], false, true);
    }
    assert!(bed.look_as("other", &other), "it is still known");
}

#[test]
fn a_pod_that_asks_for_everything_leaves_room_for_others() {
    let mut bed = Bed::new();
    bed.hear(vec![], &[], false, true);
    assert!(!bed.look_as("modest", &at("10.0.0.1")));
    bed.hear(vec![pod("p", 1, "there", &[])], &[], false, true);
    bed.ask_for_services("greedy", MAX_KEYS);
    let counts = bed.table.counts();
    let share = MAX_KEYS as u64 / 3 * 2;
    assert!((share * 14 / 15..=share + 2).contains(&counts.keys), "{}", counts.keys);
    assert!(counts.keys_hits > 0);
    // What the greedy one used last it still has, and the modest one what it asked for long before.
    assert!(bed.look_as("greedy", &Key::Named(format!("ns/{}.x", MAX_KEYS - 1).into())));
    assert!(bed.look_as("modest", &at("10.0.0.1")));
    assert!(!bed.look_as("third", &at("10.0.0.3")));
    assert_eq!(bed.asked(), ["/10.0.0.3"]);
}

#[test]
fn room_is_made_by_what_no_connection_uses() {
    let mut bed = Bed::new();
    bed.hear(vec![pod("p", 1, "there", &[])], &[], false, true);
    assert!(!bed.look_as("greedy", &Key::Named("p".into())));
    bed.hear(vec![pod("p", 1, "there", &[])], &[], false, true);
    let mut uses = Uses::default();
    uses.add("10.0.0.1".parse().unwrap(), None, None);
    bed.sweep(&uses);
    bed.ask_for_services("greedy", MAX_KEYS);
    assert!(bed.table.counts().keys_hits > 0);
    // The one that is used is the oldest by far.
    assert!(!bed.sweep(&uses).contains(&"p".to_owned()));
}

#[tokio::test]
async fn strangers_have_a_budget_of_their_own() {
    let demand = Demand::on(IDLE);
    let mesh = Mesh::new("".into(), Some("here".into()));
    let address = |number: u32| NetworkAddress::new("".into(), std::net::Ipv4Addr::from(number).into());
    (0..1000).for_each(|number| demand.ask_for_peer(&mesh, address(number)));
    assert_eq!(demand.hits()[2], ("demand_unanswered", 1000 - MAX_OF_POD as u64));
    let inner = demand.0.as_ref().unwrap();
    assert!(!inner.is_told(&Key::At(address(5000)), Seen::Nothing, &"victim".into()));
    assert_eq!(inner.table().counts().unanswered, MAX_OF_POD as u64 + 1);
}

#[test]
fn what_nobody_uses_is_forgotten_with_what_belongs_to_it() {
    let mut bed = Bed::new();
    bed.look(&at("10.96.0.1"));
    bed.look(&at("10.0.0.9"));
    bed.asked();
    bed.hear(
        vec![
            pod("local", 1, "here", &[]),
            service("s.x", 1),
            pod("endpoint", 2, "there", &["s.x"]),
            pod("alone", 9, "there", &[]),
            pod("unasked", 7, "there", &[]),
        ],
        &[],
        false,
        true,
    );
    assert_eq!(bed.sweep(&Uses::default()), ["unasked"], "istiod may tell more than was asked for");
    bed.table.take_wish();
    bed.now += IDLE / 2;
    assert!(bed.look(&at("10.96.0.1")));
    bed.now += IDLE / 2 + Duration::from_secs(1);
    // A connection that is still there keeps what it goes to.
    let mut uses = Uses::default();
    uses.add("10.0.0.9".parse().unwrap(), None, None);
    assert_eq!(bed.sweep(&uses), Vec::<String>::new());
    assert_eq!(bed.sweep(&Uses::default()), ["alone"]);
    assert_eq!(bed.released(), ["/10.0.0.9"]);
    bed.now += IDLE;
    assert_eq!(bed.sweep(&Uses::default()), ["endpoint", "ns/s.x"]);
    assert_eq!(bed.released(), ["/10.96.0.1"]);
    assert_eq!(bed.mesh.workloads().count(), 1);
    assert!(!bed.look(&at("10.96.0.1")), "it is asked for anew");
    assert_eq!(bed.asked(), ["/10.96.0.1"]);
}

#[test]
fn a_question_without_an_answer_is_put_again_and_given_up_in_the_end() {
    let mut bed = Bed::new();
    assert!(!bed.look(&at("10.0.0.1")));
    bed.asked();
    bed.now += Duration::from_secs(3);
    assert!(!bed.look(&at("10.0.0.1")));
    assert_eq!(bed.asked(), ["/10.0.0.1"]);
    bed.now += Duration::from_secs(60);
    bed.sweep(&Uses::default());
    assert_eq!(bed.released(), ["/10.0.0.1"]);
    assert_eq!(bed.table.counts().unanswered, 0);
}

#[test]
fn a_successor_asks_for_what_its_predecessor_had() {
    let mut bed = Bed::new();
    let all = vec![
        pod("local", 1, "here", &["s.x"]),
        service("s.x", 1),
        pod("endpoint", 2, "there", &["s.x"]),
        pod("alone", 9, "there", &["unknown.x"]),
    ];
    bed.hear(all, &[], false, true);
    let mut names: Vec<String> =
        bed.table.adopt(&bed.mesh, bed.now).iter().map(ToString::to_string).collect();
    names.sort();
    assert_eq!(names, ["alone", "ns/s.x"]);
    assert_eq!(bed.sweep(&Uses::default()), Vec::<String>::new());
    assert!(bed.look(&at("10.96.0.1")));
    assert!(bed.look(&at("10.0.0.9")));
}
