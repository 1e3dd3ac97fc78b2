//! What a pod asks its name server, over UDP or TCP.
//!
//! Input: an octet of options, then the query. A reply must read back, answer the question that was asked, and be no
//! larger than the client said it takes; one that does not fit says so.
#![no_main]

use std::sync::LazyLock;

use hickory_proto::op::{Message, MessageType};
use libfuzzer_sys::fuzz_target;
use model::mesh::Mesh;
use node_agent::fuzzing::dns;
use prost::Message as _;
use proto::type_url::ADDRESS;
use proto::workload::{Address, NetworkAddress, PortList, Service, Workload, address::Type};
use xds::convert::Decoder;

/// A headless service of a hundred pods, one with an address, one of another host.
static MESH: LazyLock<Mesh> = LazyLock::new(|| {
    let mut mesh = Mesh::new("".into(), Some("n".into()));
    let mut decoder = Decoder::default();
    let mut put = |name: String, address: Type| {
        let bytes = Address { r#type: Some(address) }.encode_to_vec();
        mesh.apply(decoder.decode(ADDRESS, &name.as_str().into(), bytes.into()).expect("reads"));
    };
    let hosts = [
        ("db", "db.default.svc.mesh.test", false),
        ("web", "web.default.svc.mesh.test", true),
        ("out", "example.com", true),
    ];
    for (name, host, addressed) in hosts {
        let address =
            |octets: &[u8]| NetworkAddress { address: octets.to_vec().into(), ..Default::default() };
        let addresses =
            if addressed { vec![address(&[10, 9, 0, 1]), address(&[0xfd; 16])] } else { Vec::new() };
        let service = Service {
            name: name.into(),
            namespace: "default".into(),
            hostname: host.into(),
            addresses,
            ..Default::default()
        };
        put(format!("default/{host}"), Type::Service(service));
    }
    for number in 0..100_u8 {
        let workload = Workload {
            uid: format!("uid-{number}"),
            name: format!("db-{number}"),
            namespace: "default".into(),
            node: "n".into(),
            addresses: vec![vec![10, 0, 0, number].into()],
            services: [("default/db.default.svc.mesh.test".to_owned(), PortList::default())].into(),
            ..Default::default()
        };
        put(workload.uid.clone(), Type::Workload(workload));
    }
    mesh
});

fuzz_target!(|data: &[u8]| {
    let Some((&options, query)) = data.split_first() else { return };
    let tcp = options & 1 != 0;
    let client = MESH.workload("uid-1").expect("put in");
    let Some(reply) = dns(&MESH, client, query, tcp) else { return };
    let asked = Message::from_vec(query).expect("was read");
    let answered = Message::from_vec(&reply).expect("our own reply reads");
    assert_eq!(answered.metadata.message_type, MessageType::Response);
    assert_eq!(answered.metadata.id, asked.metadata.id);
    if !answered.metadata.truncation {
        assert_eq!(answered.queries, asked.queries);
        let taken = asked.edns.as_ref().map_or(512, |edns| edns.max_payload().max(512));
        assert!(reply.len() <= if tcp { usize::from(u16::MAX) } else { usize::from(taken) });
    }
});
