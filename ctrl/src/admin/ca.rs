//! `/ca`: how the authorities stand, and what people may have them do.

use std::time::SystemTime;

use daemon::http::{Answer, Call, Routes};
use http::Method;
use pages::ca::{Restored, Revoked};

use crate::ca::upkeep::Upkeep;

/// A conflict: what is asked for does not go with how things stand.
const CONFLICT: u16 = 409;

pub(super) fn routes(routes: Routes, upkeep: &Upkeep) -> Routes {
    let on = |answer: fn(&Upkeep, &Call) -> Answer| {
        let upkeep = upkeep.clone();
        move |call: Call| {
            let answer = answer(&upkeep, &call);
            async move { answer }
        }
    };
    routes
        .on(Method::GET, "/ca", on(|upkeep, _| Answer::json(&upkeep.status(SystemTime::now()))))
        .on(Method::POST, "/ca/rotate-root", on(rotate))
        .on(Method::POST, "/ca/revoke", on(revoke))
        .on(Method::POST, "/ca/restore", on(restore))
}

/// Begins a change of roots; with `now` its successor signs at once, whoever has not heard of it.
fn rotate(upkeep: &Upkeep, call: &Call) -> Answer {
    if let Some(answer) = elsewhere(upkeep) {
        return answer;
    }
    let now = SystemTime::now();
    let keyring = &upkeep.keyring;
    if let Some(folder) = &keyring.settings().plugged {
        let text = format!(
            "the authority is plugged in: put the new one into {}, and it is distributed before it signs\n",
            folder.display()
        );
        return Answer::text(CONFLICT, text);
    }
    let begun = match keyring.begin(now) {
        Ok(begun) => begun,
        Err(error) => return Answer::text(500, format!("{error}\n")),
    };
    let forced = call.parameter("now").is_some();
    if !begun && !forced {
        return Answer::text(CONFLICT, "a change of roots is under way; see: lateen ca status\n");
    }
    upkeep.advance(now);
    if forced
        && keyring.successor_since().is_some()
        && let Err(error) = keyring.switch(now)
    {
        return Answer::text(500, format!("{error}\n"));
    }
    upkeep.advance(now);
    Answer::json(&upkeep.status(now))
}

/// Of several replicas one changes the authority.
fn elsewhere(upkeep: &Upkeep) -> Option<Answer> {
    let elsewhere = upkeep.custody.as_ref().is_some_and(|custody| !custody.leads());
    let text = "another replica changes the authority: ask the one that the Lease lateen-leader names as its holder\n";
    elsewhere.then(|| Answer::text(CONFLICT, text))
}

fn revoke(upkeep: &Upkeep, call: &Call) -> Answer {
    if let Some(answer) = elsewhere(upkeep) {
        return answer;
    }
    let now = SystemTime::now();
    let revoked = match upkeep.keyring.revoke(&call.parameter("what").unwrap_or_default(), now) {
        Ok(revoked) => revoked,
        Err(error) => return Answer::text(CONFLICT, format!("{error}\n")),
    };
    upkeep.advance(now);
    Answer::json(&Revoked {
        identity: revoked.identity.to_string(),
        whole: revoked.whole,
        certificates: revoked.certificates,
    })
}

fn restore(upkeep: &Upkeep, call: &Call) -> Answer {
    if let Some(answer) = elsewhere(upkeep) {
        return answer;
    }
    match upkeep.keyring.restore(&call.parameter("what").unwrap_or_default()) {
        Ok(identity) => {
            upkeep.advance(SystemTime::now());
            Answer::json(&Restored { identity: identity.to_string() })
        }
        Err(error) => Answer::text(CONFLICT, format!("{error}\n")),
    }
}
