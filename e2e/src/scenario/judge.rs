//! How requests of a scenario are made, and whether what came of them is what was expected.

use std::collections::BTreeMap;

use serde_json::Value;

use super::form::{Answer, Connection, Expectation};

/// Stands between a body and what curl says of its transfer.
const END: &str = "\n@@ ";
/// What curl ends with where a connection was not taken, or ended without an answer; not where a name was not found, or
/// nothing came in time.
const REFUSED: [u16; 3] = [7, 52, 56];

/// What came of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Came {
    /// 0 where there was none.
    status: u16,
    /// Of curl.
    code: u16,
    body: String,
}

/// The command that asks so often, on one connection if it may stay.
pub(super) fn command(expected: &Expectation, id: &str, times: u32) -> Vec<String> {
    let told = format!("{}%{{http_code}} %{{exitcode}}\\n", END.replace('\n', "\\n"));
    let mut command: Vec<String> =
        ["curl", "-s", "-m", "20", "--path-as-is", "-X", &expected.method, "-w", &told]
            .map(str::to_owned)
            .into();
    let id = ("x-request-id".to_owned(), id.to_owned());
    let headers = expected.headers.clone().into_iter().chain([id]);
    command.extend(headers.flat_map(|(name, value)| ["-H".to_owned(), format!("{name}: {value}")]));
    // What stands after # is counted, and not sent.
    command.push(format!("{}#[1-{times}]", expected.url));
    command
}

/// What it says of each; what is no such text says nothing.
pub(super) fn answers(stdout: &str) -> Vec<Came> {
    let mut rest = stdout;
    let mut all = Vec::new();
    while let Some((body, after)) = rest.split_once(END) {
        let (told, after) = after.split_once('\n').unwrap_or((after, ""));
        let numbers: Vec<u16> = told.split(' ').map_while(|number| number.parse().ok()).collect();
        if let [status, code] = numbers[..] {
            all.push(Came { status, code, body: body.to_owned() });
        }
        rest = after;
    }
    all
}

/// Whether all of it is as expected; else the first that is not.
pub(super) fn judge(expected: &Expectation, came: &[Came], times: u32) -> Result<(), String> {
    if came.len() != times as usize {
        return Err(format!("{} of {times} requests were made", came.len()));
    }
    for one in came {
        let fits = match expected.answer {
            Answer::Status(status) => one.status == status && one.code == 0,
            Answer::Connection(Connection::Refused) => one.status == 0 && REFUSED.contains(&one.code),
        };
        if !fits || !one.body.contains(&expected.body) {
            return Err(format!(
                "expected {:?} with {:?}, and there came {one:?}",
                expected.answer, expected.body
            ));
        }
    }
    shares(&expected.versions, came)
}

/// Whether versions have their shares, within five standard deviations of what chance makes of them: one run in two million is
/// beyond.
fn shares(versions: &BTreeMap<String, u32>, came: &[Came]) -> Result<(), String> {
    if versions.is_empty() {
        return Ok(());
    }
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for one in came {
        let body: Value = serde_json::from_str(&one.body).unwrap_or_default();
        *seen.entry(body["version"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    let total = f64::from(seen.values().sum::<u32>());
    let fits = |version: &String, count: u32| {
        let share = f64::from(versions.get(version).copied().unwrap_or_default()) / 100.0;
        let far = f64::from(count) - total * share;
        far * far <= 25.0 * total * share * (1.0 - share)
    };
    // Were one that hardly any get let off, a single connection past the waypoint, all of one version, would do.
    let all_seen = versions.keys().all(|version| seen.contains_key(version));
    match all_seen && seen.iter().all(|(version, count)| fits(version, *count)) {
        true => Ok(()),
        false => Err(format!("expected {versions:?} percent, and there came {seen:?}")),
    }
}

/// Whether a record of `lateen why` is of this request, and gives the reason.
pub(super) fn is_reason(record: &Value, expected: &Expectation, id: &str, begun: u64) -> bool {
    let text = |path: &str| record.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (namespace, pod) = expected.client();
    let denied = !matches!(expected.answer, Answer::Status(200..=399));
    let reason = format!("{}; {}", text("/policy"), text("/route"));
    // A connection has no name: it is the client's, of that time.
    let ours = match record["request"].is_object() {
        true => text("/request/id") == id,
        false => record["begunMicros"].as_u64() >= Some(begun) && text("/client/namespace") == namespace,
    };
    let pod = pod.trim_start_matches("deploy/");
    ours && text("/client/name").starts_with(pod)
        && text("/verdict") == if denied { "denied" } else { "passed" }
        && text("/proxy").starts_with(&expected.by)
        && reason.contains(&expected.why)
}

/// Parts of the line by which an agent says of a connection that both ends, each `NAMESPACE/ACCOUNT`, have proven who they are.
pub(super) fn proof([client, server]: &[String; 2]) -> [String; 2] {
    let identity = |end: &str, of: &str| {
        let (namespace, account) = of.split_once('/').unwrap_or(("default", of));
        format!("{end}.identity=\"spiffe://cluster.local/ns/{namespace}/sa/{account}\"")
    };
    [identity("src", client), identity("dst", server)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scenario::form::Scenario;

    fn expectation(more: &str) -> Expectation {
        let text = format!(
            "manifests: []\nsteps: [{{name: s, expect: [{{from: shop/a, url: 'http://b/', {more}}}]}}]"
        );
        Scenario::read(&text).unwrap().steps.remove(0).expect.remove(0)
    }

    fn came(status: u16, code: u16, body: &str) -> Came {
        Came { status, code, body: body.to_owned() }
    }

    #[test]
    fn every_answer_is_read_and_a_command_that_failed_has_none() {
        let printed = "one\ntwo\n@@ 200 0\n\n@@ 000 56\n";
        assert_eq!(answers(printed), [came(200, 0, "one\ntwo"), came(0, 56, "")]);
        assert_eq!(answers("error: no such pod\n"), []);
        assert_eq!(answers("\n@@ \n"), []);
    }

    #[test]
    fn an_answer_is_as_expected_or_it_is_not() {
        for (more, came, holds) in [
            ("body: x", came(200, 0, "axb"), true),
            ("body: x", came(200, 0, "ab"), false),
            ("body: x", came(200, 18, "axb"), false),
            ("answer: 403", came(403, 0, ""), true),
            ("answer: 403", came(200, 0, ""), false),
            ("answer: refused", came(0, 56, ""), true),
            ("answer: refused", came(0, 7, ""), true),
            ("answer: refused", came(0, 6, ""), false),
            ("answer: refused", came(0, 28, ""), false),
            ("answer: refused", came(403, 0, ""), false),
        ] {
            let judged = judge(&expectation(more), std::slice::from_ref(&came), 1);
            assert_eq!(judged.is_ok(), holds, "{more}: {came:?}: {judged:?}");
        }
        assert!(judge(&expectation(""), &[came(200, 0, "")], 2).is_err(), "one is missing");
    }

    #[test]
    fn shares_are_what_chance_can_make_of_them() {
        let canary = expectation("versions: {v1: 95, v2: 5}");
        let of = |versions: &[(&str, usize)]| -> Vec<Came> {
            let bodies = versions.iter().flat_map(|(version, count)| std::iter::repeat_n(version, *count));
            bodies.map(|version| came(200, 0, &json!({ "version": version }).to_string())).collect()
        };
        for (versions, holds) in [
            (&[("v1", 950), ("v2", 50)][..], true),
            (&[("v1", 916), ("v2", 84)], true),
            (&[("v1", 915), ("v2", 85)], false),
            (&[("v1", 984), ("v2", 16)], true),
            (&[("v1", 985), ("v2", 15)], false),
            (&[("v1", 1000)], false),
            (&[("v1", 949), ("v2", 50), ("v3", 1)], false),
            (&[("v1", 19), ("v2", 1)], true),
            (&[("v1", 20)], false),
        ] {
            assert_eq!(shares(&canary.versions, &of(versions)).is_ok(), holds, "{versions:?}");
        }
        let all = expectation("versions: {v3: 100}");
        assert!(shares(&all.versions, &of(&[("v3", 9)])).is_ok());
        assert!(shares(&all.versions, &of(&[("v3", 9), ("v1", 1)])).is_err());
    }

    #[test]
    fn a_reason_is_that_of_this_request() {
        let expected = expectation("answer: 403, why: shop/no, by: waypoint/shop/way");
        let of_request = |id: &str, verdict: &str, policy: &str, proxy: &str| {
            json!({"request": {"id": id}, "client": {"namespace": "shop", "name": "a"}, "verdict": verdict,
                "policy": policy, "proxy": proxy, "begunMicros": 5})
        };
        let denied = "explicitly denied by: shop/no (rule 0)";
        for (id, verdict, policy, proxy, is) in [
            ("id", "denied", denied, "waypoint/shop/way-1", true),
            ("other", "denied", denied, "waypoint/shop/way-1", false),
            ("id", "passed", denied, "waypoint/shop/way-1", false),
            ("id", "denied", "shop/other", "waypoint/shop/way-1", false),
            ("id", "denied", denied, "node-agent/node-1", false),
        ] {
            let record = of_request(id, verdict, policy, proxy);
            assert_eq!(is_reason(&record, &expected, "id", 9), is, "{record}");
        }
        let refused = expectation("answer: refused, why: shop/no");
        for (namespace, name, begun, is) in
            [("shop", "a", 9, true), ("shop", "a", 8, false), ("shop", "b", 9, false), ("far", "a", 9, false)]
        {
            let record = json!({"client": {"namespace": namespace, "name": name}, "verdict": "denied",
                "policy": denied, "proxy": "node-agent/node-1", "begunMicros": begun});
            assert_eq!(is_reason(&record, &refused, "id", 9), is, "{record}");
        }
    }
}
