//! `/decisions?namespace=&request=&refused&since=SECONDS&limit=`: what proxies remember of what they decided, all of it
//! asked for at this moment, the newest first.

use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemon::http::{Answer, Call};
use futures_util::{Stream, StreamExt as _};
use pages::decisions::{Decisions, End, Record, Request, Silent};
use proto::diagnostics::{Decision, DecisionQuery, Peer, Verdict};
use xds::diagnostics::{Attending, MOST_RECORDS, Said};
use xds::node::NodeInfo;

/// Asks and puts together.
pub(super) async fn list(attending: &Attending, call: &Call) -> Answer {
    let (query, limit) = match query(call, SystemTime::now()) {
        Ok(query) => query,
        Err(text) => return Answer::text(400, text),
    };
    Answer::json(&joined(attending.decisions(&query), limit).await)
}

fn query(call: &Call, now: SystemTime) -> Result<(DecisionQuery, usize), String> {
    let number = |name: &str| match call.parameter(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => {
            text.parse::<u64>().map(Some).map_err(|_| format!("{name}={text:?} is to be a number\n"))
        }
    };
    let since = number("since")?.map(|seconds| now.checked_sub(Duration::from_secs(seconds)));
    let since = since.flatten().and_then(|since| since.duration_since(UNIX_EPOCH).ok());
    let limit = number("limit")?.map_or(MOST_RECORDS, |limit| usize::try_from(limit).unwrap_or(MOST_RECORDS));
    let limit = limit.clamp(1, MOST_RECORDS);
    let query = DecisionQuery {
        namespace: call.parameter("namespace").unwrap_or_default(),
        request_id: call.parameter("request").unwrap_or_default(),
        refused_only: call.parameter("refused").is_some(),
        since_micros: since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX)),
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
    };
    Ok((query, limit))
}

async fn joined(said: impl Stream<Item = Said>, limit: usize) -> Decisions {
    let (mut records, mut silent) = (Vec::new(), Vec::new());
    let mut said = pin!(said);
    while let Some(Said { node, records: told }) = said.next().await {
        let proxy = proxy(&node);
        match told {
            Ok(told) => records.extend(told.into_iter().map(|one| record(&proxy, one))),
            Err(reason) => silent.push(Silent { proxy, reason }),
        }
        // Before the next ones: there may be thousands of proxies.
        records.sort_by_key(|record| std::cmp::Reverse(record.begun_micros));
        records.truncate(limit);
    }
    silent.sort_by(|one: &Silent, other| one.proxy.cmp(&other.proxy));
    Decisions { records, silent }
}

fn proxy(node: &NodeInfo) -> String {
    match node.kind.as_str() {
        "waypoint" => format!("waypoint/{}/{}", node.namespace, node.pod),
        _ => format!("node-agent/{}", node.node_name().unwrap_or(&node.pod)),
    }
}

fn record(proxy: &str, one: Decision) -> Record {
    let verdict = match one.verdict() {
        Verdict::Denied => "denied",
        Verdict::Failed => "failed",
        Verdict::Passed | Verdict::Unspecified => "passed",
    };
    let request = (!one.method.is_empty()).then_some(Request {
        id: one.request_id,
        method: one.method,
        authority: one.authority,
        path: one.path,
        status: one.status,
    });
    Record {
        begun_micros: one.begun_micros,
        duration_micros: one.duration_micros,
        proxy: proxy.to_owned(),
        direction: one.direction,
        client: end(one.client),
        server: end(one.server),
        service: one.service,
        request,
        verdict: verdict.to_owned(),
        flags: one.flags,
        policy: one.policy,
        route: one.route,
        detail: one.detail,
    }
}

fn end(peer: Option<Peer>) -> End {
    let Peer { namespace, name, identity, address } = peer.unwrap_or_default();
    End { namespace, name, identity, address }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_of_all_proxies_come_first_and_the_silent_are_named() {
        let decision = |begun_micros| Decision { begun_micros, ..Decision::default() };
        let node = |kind: &str, pod: &str| NodeInfo::new(kind, None, pod, "shop").on_node("node-1");
        let said = vec![
            Said { node: node("waypoint", "w"), records: Ok(vec![decision(5), decision(1)]) },
            Said { node: node("ztunnel", "z"), records: Ok(vec![decision(3)]) },
            Said { node: node("waypoint", "x"), records: Err("it has gone".into()) },
        ];
        let Decisions { records, silent } = joined(futures_util::stream::iter(said), 2).await;
        let seen: Vec<_> = records.iter().map(|one| (one.begun_micros, one.proxy.as_str())).collect();
        assert_eq!(seen, [(5, "waypoint/shop/w"), (3, "node-agent/node-1")]);
        assert_eq!(silent[0].proxy, "waypoint/shop/x");
    }
}
