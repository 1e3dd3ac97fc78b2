//! What comes in by headers, of either format, goes out by them.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;
const T: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const P: &str = "00f067aa0ba902b7";

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    map
}

fn all() -> Formats {
    "tracecontext, b3,b3multi".parse().unwrap()
}

/// What headers say: trace and parent, and the decision to sample.
#[test]
fn each_format_is_read_exactly_or_not_at_all() {
    let known = Some((TRACE, PARENT));
    let w3c = |text: String| vec![("traceparent", text)];
    let b3 = |text: String| vec![("b3", text)];
    for (headers, parent, sampled) in [
        (w3c(format!("00-{T}-{P}-01")), known, Some(true)),
        (w3c(format!("00-{T}-{P}-00")), known, Some(false)),
        (w3c(format!("00-{T}-{P}-03")), known, Some(true)),
        (w3c(format!("cc-{T}-{P}-01-what-comes")), known, Some(true)),
        (w3c(format!("00-{T}-{P}-01-more")), None, None),
        (w3c(format!("ff-{T}-{P}-01")), None, None),
        (w3c(format!("00-{}-{P}-01", T.to_uppercase())), None, None),
        (w3c(format!("00-{}-{P}-01", "0".repeat(32))), None, None),
        (w3c(format!("00-{T}-{}-01", "0".repeat(16))), None, None),
        (w3c(format!("00-{T}-{P}")), None, None),
        (w3c(format!("00-{}-{P}-01", &T[1..])), None, None),
        (w3c("ä".into()), None, None),
        (b3(format!("{T}-{P}-1")), known, Some(true)),
        (b3(format!("{T}-{P}-0-05e3ac9a4f6e3b90")), known, Some(false)),
        (b3(format!("{T}-{P}")), known, None),
        (b3(format!("{T}-{P}-d")), known, Some(true)),
        (b3(format!("{}-{P}-1", &T[16..])), Some((TRACE & u128::from(u64::MAX), PARENT)), Some(true)),
        (b3("0".into()), None, Some(false)),
        (b3("d".into()), None, Some(true)),
        (b3(format!("{T}-{P}-x")), None, None),
        (b3(T.into()), None, None),
        (vec![("x-b3-traceid", T.into()), ("x-b3-spanid", P.into())], known, None),
        (
            vec![("x-b3-traceid", T.to_uppercase()), ("x-b3-spanid", P.into()), ("x-b3-sampled", "1".into())],
            known,
            Some(true),
        ),
        (vec![("x-b3-traceid", T.into())], None, None),
        (vec![("x-b3-sampled", "0".into())], None, Some(false)),
        (vec![("x-b3-sampled", "0".into()), ("x-b3-flags", "1".into())], None, Some(true)),
        (
            vec![("traceparent", format!("00-{T}-{P}-01")), ("traceparent", format!("00-{T}-{P}-01"))],
            None,
            None,
        ),
        // The first that names a trace, in the order of the formats.
        (
            vec![("traceparent", format!("00-{T}-{P}-00")), ("b3", format!("{}-{P}-1", &T[16..]))],
            known,
            Some(false),
        ),
        (vec![("traceparent", "broken".into()), ("b3", format!("{T}-{P}-1"))], known, Some(true)),
        (vec![("b3", "1".into()), ("x-b3-traceid", T.into()), ("x-b3-spanid", P.into())], known, None),
    ] {
        let pairs: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let carried = Carried::read(&map(&pairs), all());
        assert_eq!((carried.parent, carried.sampled), (parent, sampled), "{headers:?}");
    }
}

#[test]
fn those_behind_are_told_in_the_formats_that_came() {
    let span = |parent| Span { trace: TRACE, id: 7, parent };
    let written = |before: &[(&str, &str)], formats: Formats, sampled| {
        let mut headers = map(before);
        let carried = Carried::read(&headers, formats);
        carried.write(&mut headers, formats, &span(carried.parent.map(|(_, parent)| parent)), sampled);
        let mut pairs: Vec<(String, String)> =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().into())).collect();
        pairs.sort();
        pairs
    };
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    };
    let (id, parent) = ("0000000000000007", format!("00-{T}-{P}-01"));
    let new = format!("00-{T}-{id}-01");
    assert_eq!(written(&[], all(), true), own(&[("traceparent", &new)]));
    assert_eq!(
        written(&[("traceparent", &parent), ("tracestate", "a=1,b=2")], all(), true),
        own(&[("traceparent", &new), ("tracestate", "a=1,b=2")]),
        "the state of others goes on with the trace"
    );
    assert_eq!(
        written(&[("traceparent", "broken"), ("tracestate", "a=1")], all(), false),
        own(&[("traceparent", &new.replace("-01", "-00"))]),
        "but not into another"
    );
    let b3 = format!("{T}-{P}-1");
    let both = format!("{T}-{id}-1-{P}");
    assert_eq!(written(&[("b3", &b3)], all(), true), own(&[("b3", &both), ("traceparent", &new)]));
    assert_eq!(
        written(&[("b3", &b3)], "b3multi,tracecontext".parse().unwrap(), true),
        own(&[("b3", &b3), ("traceparent", &new)]),
        "what is not understood stays as it came"
    );
    assert_eq!(
        written(
            &[("x-b3-traceid", T), ("x-b3-spanid", P), ("x-b3-sampled", "0")],
            "b3multi".parse().unwrap(),
            false
        ),
        own(&[("x-b3-parentspanid", P), ("x-b3-sampled", "0"), ("x-b3-spanid", id), ("x-b3-traceid", T)])
    );
    assert_eq!(
        written(&[("x-b3-flags", "1"), ("x-b3-sampled", "0")], "b3multi".parse().unwrap(), true),
        own(&[("x-b3-flags", "1"), ("x-b3-spanid", id), ("x-b3-traceid", T)]),
        "debug goes on, and says it alone"
    );
}

#[test]
fn a_format_of_another_name_is_refused() {
    assert_eq!("jaeger".parse::<Formats>(), Err(TraceError::Format("jaeger".into())));
    assert_eq!("".parse(), Ok(Formats::default()));
}
