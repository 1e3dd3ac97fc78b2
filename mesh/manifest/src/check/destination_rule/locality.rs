//! Where traffic goes by where client and endpoint are.

use crate::{
    check::{Report, values},
    cursor::Cursor,
};

/// Labels that say where something is.
const TOPOLOGY: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

/// The rules of a `localityLbSetting`.
pub(super) fn check(setting: &Cursor<'_>, finds_unhealthy: bool, report: &mut Report<'_>) {
    let failover = setting.items("failover");
    let distribute = setting.items("distribute");
    if !distribute.is_empty() {
        values::only_one(setting, &["distribute", "failover"], report);
        values::only_one(setting, &["distribute", "failoverPriority"], report);
    }
    let priority = setting.items("failoverPriority");
    if !failover.is_empty()
        && let Some(label) = priority.iter().find(|label| TOPOLOGY.contains(&label.text()))
    {
        let message = format!("`{}` cannot stand beside `failover`", label.text());
        report.error(label, message, Some("leave one of the two out".to_owned()));
    }
    for label in &priority {
        if label.text().split('=').next().unwrap_or_default().is_empty() {
            report.error(label, "a label without a name", None);
        }
    }
    let from: Vec<Cursor<'_>> = distribute.iter().filter_map(|one| one.get("from")).collect();
    localities(&from, report);
    distribute.iter().for_each(|one| shares(one, report));
    for one in &failover {
        regions(one, report);
    }
    let wants = [("failover", failover.len()), ("failoverPriority", priority.len())];
    if let Some((key, _)) = wants.iter().find(|(_, count)| *count > 0)
        && !finds_unhealthy
        && let Some(at) = setting.get(key)
    {
        let fix = Some("add `outlierDetection:` beside `loadBalancer`".to_owned());
        let message = format!("`{key}` without `outlierDetection`: nobody notices that endpoints fail");
        report.warning_at_key(&at, message, fix);
    }
}

/// Where the traffic of one locality goes.
fn shares(one: &Cursor<'_>, report: &mut Report<'_>) {
    if one.get("from").is_none() {
        report.error(one, "`from` is missing", Some("add `from:`, such as `region/zone/*`".to_owned()));
    }
    let Some(to) = one.get("to").filter(|to| !to.is_empty()) else {
        return report.error(
            one,
            "`to` is missing",
            Some("add `to:` with localities and their percent".to_owned()),
        );
    };
    let shares: Vec<(&str, Cursor<'_>)> = to.fields().collect();
    let mut sum = 0.0;
    for (_, share) in &shares {
        let percent = values::number(share).unwrap_or_default();
        if !(1.0..=100.0).contains(&percent) {
            return report.error(share, "not a number from 1 to 100", None);
        }
        sum += percent;
    }
    if sum != 100.0 {
        return report.error_at_key(&to, format!("{sum} percent together, not 100"), None);
    }
    let names: Vec<&str> = shares.iter().map(|(name, _)| *name).collect();
    for (index, (name, at)) in shares.iter().enumerate() {
        let (name_ok, before) = (is_locality(name), &names[..index]);
        if !name_ok || before.iter().any(|other| overlap(other, name)) {
            told(name, name_ok, at, report);
        }
    }
}

fn localities(all: &[Cursor<'_>], report: &mut Report<'_>) {
    for (index, at) in all.iter().enumerate() {
        let name_ok = is_locality(at.text());
        if !name_ok || all[..index].iter().any(|other| overlap(other.text(), at.text())) {
            told(at.text(), name_ok, at, report);
        }
    }
}

fn told(name: &str, is_one: bool, at: &Cursor<'_>, report: &mut Report<'_>) {
    match is_one {
        true => report.error_at_key(at, format!("`{name}` overlaps with one before it"), None),
        false => {
            let fix = Some(
                "write `REGION`, `REGION/ZONE` or `REGION/ZONE/SUBZONE`, `*` only at the end".to_owned(),
            );
            report.error_at_key(at, format!("`{name}` is not a locality"), fix);
        }
    }
}

fn is_locality(text: &str) -> bool {
    let stars = text.matches('*').count();
    text.splitn(3, '/').all(|part| !part.is_empty()) && (stars == 0 || (stars == 1 && text.ends_with('*')))
}

/// Whether some locality is both of these; what is not said is any.
fn overlap(left: &str, right: &str) -> bool {
    let mut parts = left.splitn(3, '/').zip(right.splitn(3, '/'));
    parts.all(|(left, right)| left == right || left == "*" || right == "*")
}

/// Where to when a region has no endpoints left.
fn regions(one: &Cursor<'_>, report: &mut Report<'_>) {
    let of = |key: &str| one.get(key).filter(|value| !value.text().is_empty());
    for key in ["from", "to"] {
        match of(key) {
            None => {
                report.error(one, format!("`{key}` is missing"), Some(format!("add `{key}:` with a region")))
            }
            Some(region) if region.text().contains(['/', '*']) => {
                let fix = Some("name a region".to_owned());
                report.error(&region, format!("`{}` is not a region", region.text()), fix);
            }
            Some(_) => {}
        }
    }
    if let (Some(from), Some(to)) = (of("from"), of("to"))
        && from.text() == to.text()
    {
        report.error(&to, "the region stands in for itself", None);
    }
}
