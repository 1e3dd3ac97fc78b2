//! Trust domains that count as one: a principal of one of them means the same account of the others. A mesh that
//! changes its trust domain has workloads of the old and of the new one for a while; a rule that denies an account has
//! to deny both.

use std::iter;

use model::authz::StringMatch;
use model::mesh::Settings;

use super::rule::text;

/// What stands for the mesh's own trust domain in manifests, whatever that is called.
const OWN: &str = "cluster.local";

/// The principals that these values mean, those of each trust domain that counts as the one written. Where the trust
/// domain itself is a pattern, it is compared as it stands.
pub(super) fn principals(values: &[String], mesh: &Settings) -> Vec<StringMatch> {
    let mut all = Vec::new();
    for value in values {
        for spelt in spellings(value, mesh) {
            let principal = text(&spelt);
            if !all.contains(&principal) {
                all.push(principal);
            }
        }
    }
    all
}

fn spellings(value: &str, mesh: &Settings) -> Vec<String> {
    let value = value.strip_prefix("spiffe://").unwrap_or(value);
    let domains = || iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    match value.split_once('/') {
        Some((domain, account)) if domain == OWN || domains().any(|known| **known == *domain) => {
            domains().map(|known| format!("{known}/{account}")).collect()
        }
        _ => vec![value.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_of_one_domain_is_one_of_all() {
        let mesh = Settings {
            trust_domain: "new.example".into(),
            trust_domain_aliases: vec!["old.example".into()],
            ..Settings::default()
        };
        let exact = |names: &[&str]| -> Vec<StringMatch> {
            names.iter().map(|name| StringMatch::Exact((*name).into())).collect()
        };
        let both = exact(&["new.example/ns/a/sa/b", "old.example/ns/a/sa/b"]);
        for (written, expected) in [
            ("new.example/ns/a/sa/b", both.clone()),
            ("old.example/ns/a/sa/b", both.clone()),
            ("spiffe://old.example/ns/a/sa/b", both.clone()),
            ("cluster.local/ns/a/sa/b", both.clone()),
            ("other.example/ns/a/sa/b", exact(&["other.example/ns/a/sa/b"])),
            ("*/ns/a/sa/b", vec![StringMatch::Suffix("/ns/a/sa/b".into())]),
            ("*", vec![StringMatch::Presence]),
            (
                "old.example/ns/a/*",
                ["new.example/ns/a/", "old.example/ns/a/"]
                    .map(|start| StringMatch::Prefix(start.into()))
                    .to_vec(),
            ),
        ] {
            assert_eq!(principals(&[written.to_owned()], &mesh), expected, "{written}");
        }
        let twice = ["new.example/ns/a/sa/b", "old.example/ns/a/sa/b"].map(str::to_owned);
        assert_eq!(principals(&twice, &mesh), both);
        let usual = principals(&["cluster.local/ns/a/sa/b".to_owned()], &Settings::default());
        assert_eq!(usual, exact(&["cluster.local/ns/a/sa/b"]));
    }
}
