//! The warnings long before something ends: each once a day.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::ca::keyring::Ends;
use crate::ca::root::EXPIRY_WARNING;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What was warned of, and when.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    said: HashMap<&'static str, SystemTime>,
}

/// Whether to warn now of what ends at `end`, and was warned of at `said`.
fn is_due(end: SystemTime, warning: Duration, said: Option<SystemTime>, now: SystemTime) -> bool {
    let said_today = said.is_some_and(|said| now < said + DAY && now + DAY > said);
    end < now + warning && !said_today
}

/// What of a span is warned of: 30 days, and of what lives for less than 90 a third of its life.
pub(crate) fn warning(lifetime: Duration) -> Duration {
    EXPIRY_WARNING.min(lifetime / 3)
}

impl Alarm {
    /// Says what has to be said.
    pub(super) fn sound(&mut self, ends: &Ends, now: SystemTime) {
        for (what, validity) in ends.all() {
            let lifetime = validity.not_after.duration_since(validity.not_before).unwrap_or_default();
            if !is_due(validity.not_after, warning(lifetime), self.said.get(what).copied(), now) {
                continue;
            }
            self.said.insert(what, now);
            let left = validity.not_after.duration_since(now).unwrap_or_default();
            let hint = if ends.made_here {
                "a new one is made by itself; if that is not so, see: lateen ca status"
            } else {
                "put a new one into the folder of the plugged-in authority"
            };
            tracing::warn!(
                what,
                days = left.as_secs() / DAY.as_secs(),
                ?left,
                hint,
                "ends soon, and with it everything it signed"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_from_thirty_days_on_once_a_day() {
        let day = |days: u64| SystemTime::UNIX_EPOCH + DAY * u32::try_from(days).unwrap();
        for (about, end, said, now, expected) in [
            ("long before", 131, None, 100, false),
            ("thirty days before", 130, None, 101, true),
            ("today already", 130, Some(101), 101, false),
            ("yesterday", 130, Some(101), 102, true),
            ("after its end", 130, Some(101), 140, true),
            ("the clock went back", 130, Some(200), 110, true),
        ] {
            assert_eq!(is_due(day(end), EXPIRY_WARNING, said.map(day), day(now)), expected, "{about}");
        }
        assert_eq!(warning(DAY * 3650), DAY * 30);
        assert_eq!(warning(DAY * 3), DAY);
    }
}
