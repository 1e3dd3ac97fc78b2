//! "Why did my request get a 403?": what `lateen why` says of requests and connections that are over.

use e2e::{Mesh, manifests};
use serde_json::Value;

use crate::{ask, mesh};

/// What `lateen why` prints as JSON.
fn why(mesh: &Mesh, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let told = mesh.lateen(&[&["why", "-o", "json"][..], arguments].concat());
    let answer: Value = serde_json::from_str(&told.stdout).map_err(|error| format!("{error}: {told}"))?;
    if !told.ok() {
        return Err(told.to_string());
    }
    answer["records"].as_array().cloned().ok_or_else(|| told.to_string())
}

/// The one record of a request, once its waypoint attends.
#[track_caller]
fn of(mesh: &Mesh, id: &str) -> Value {
    let mut found = Value::Null;
    mesh.eventually("the request is remembered", |mesh| match &why(mesh, &[id])?[..] {
        [one] => {
            found = one.clone();
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });
    found
}

#[test]
fn every_refusal_can_be_asked_about_afterwards() {
    let only_client = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                       metadata: {name: nobody, namespace: test}\n\
                       spec: {selector: {matchLabels: {app: plain}}, action: DENY, rules: [{}]}\n";
    let plain = manifests::server("plain", "test", "node-2", "lateen, echo, --http, \"8080\"", &[8080]);
    let mesh = mesh(&[], &format!("{plain}{only_client}"));

    assert_eq!(ask(&mesh, "http://shop/admin?x=1", &["-H", "x-request-id: first"]), "403");
    let denied = of(&mesh, "first");
    assert_eq!(denied["verdict"], "denied", "{denied}");
    assert_eq!(denied["policy"], "explicitly denied by: test/no-admin (rule 0)", "{denied}");
    assert_eq!(denied["route"], "VirtualService test/shop http[3]", "{denied}");
    assert_eq!(denied["service"], "shop.test.svc.cluster.local", "{denied}");
    assert_eq!(denied["client"]["name"], "client", "{denied}");
    assert_eq!(denied["client"]["identity"], "spiffe://cluster.local/ns/test/sa/client", "{denied}");
    assert_eq!(
        (&denied["server"]["namespace"], &denied["server"]["name"]),
        (&"test".into(), &"shop-v1".into())
    );
    let request = &denied["request"];
    assert_eq!((&request["method"], &request["path"]), (&"GET".into(), &"/admin?x=1".into()));
    assert_eq!((&request["authority"], &request["status"]), (&"shop".into(), &403.into()));
    assert!(
        denied["proxy"].as_str().is_some_and(|proxy| proxy.starts_with("waypoint/test/way-")),
        "{denied}"
    );

    // What passes by the hundred pushes nothing out that was refused, and is remembered with its rule.
    let script = "import http.client\nc = http.client.HTTPConnection('shop')\nfor n in range(1500):\n    \
                  c.request('GET', '/', headers={'x-request-id': f'n{n}'})\n    c.getresponse().read()";
    assert!(mesh.exec("test", "client", &["python3", "-c", script]).ok());
    of(&mesh, "first");
    let passed = of(&mesh, "n1499");
    assert_eq!(
        (&passed["verdict"], &passed["policy"]),
        (&"passed".into(), &"no policy applies".into()),
        "{passed}"
    );
    assert_eq!(why(&mesh, &["n0"]).map(|all| all.len()), Ok(0), "the oldest has gone");

    // A connection that the agent of its pod denied, without any waypoint: both ends remember it.
    assert_eq!(ask(&mesh, "http://plain:8080/", &[]), "000");
    mesh.eventually("both agents tell", |mesh| {
        let all = why(mesh, &["--denied", "--since", "5m", "-n", "test"])?;
        for (proxy, direction) in [("node-agent/node-1", "outbound"), ("node-agent/node-2", "inbound")] {
            let is_it = |one: &&Value| {
                one["proxy"] == proxy && one["direction"] == direction && one["verdict"] == "denied"
            };
            let found = all.iter().find(is_it).ok_or_else(|| format!("none of {proxy} in {all:?}"))?;
            let policy = found["policy"].as_str().unwrap_or_default();
            if !policy.starts_with("explicitly denied by: test/nobody (rule 0)") {
                return Err(found.to_string());
            }
        }
        if all.iter().any(|one| one["verdict"] == "passed") { Err(format!("{all:?}")) } else { Ok(()) }
    });
    // Of another namespace there is nothing, and the table says the same as JSON.
    assert_eq!(why(&mesh, &["--denied", "-n", "watch"]).map(|all| all.len()), Ok(0));
    let table = mesh.lateen(&["why", "first"]);
    for part in ["client.test", "shop-v1.test", "GET shop/admin?x=1", "denied 403", "test/no-admin (rule 0)"]
    {
        assert!(table.stdout.contains(part), "{part} in {table}");
    }

    // A controller that starts anew is attended again.
    mesh.ctrl().kill();
    mesh.eventually("the request is remembered still", |mesh| match why(mesh, &["first"])?.len() {
        1 => Ok(()),
        other => Err(format!("{other} records")),
    });
}
