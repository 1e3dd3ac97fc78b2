//! `lateen waypoint`: makes, lists and removes waypoints, as `istioctl waypoint` does, and those in front of a service
//! account. In a cluster through its API server; of a mesh of this machine, whose objects are the files that it was
//! started with, it lists and tells, and `generate` writes what belongs into them.

mod args;
mod cluster;
mod gateway;
mod show;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use self::args::WaypointArgs;
use self::args::{WaypointAction, WaypointApply, WaypointDelete, WaypointShow};
use self::cluster::Gateways;
use crate::args::VersionFormat;
use crate::ctrl::ask;
use crate::install::blocking;
use crate::local::manifests::DEFAULT_NAMESPACE;
use crate::place::Place;
use crate::{Outcome, complain, say};

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(300);

/// Why a waypoint is not made or removed.
#[derive(Debug, thiserror::Error)]
enum WaypointError {
    /// The mesh's objects are its files.
    #[error(
        "a mesh of this machine reads its objects from the files that it was started with; add the Gateway to one of them: lateen \
         waypoint generate {0} >> FILE.yaml"
    )]
    OfFiles(String),
    /// The same, for removing.
    #[error(
        "a mesh of this machine reads its objects from the files that it was started with; remove the Gateway from its file"
    )]
    InFiles,
    /// Nothing says which.
    #[error("say which waypoints are meant: a name, --service-account or --all")]
    Unnamed,
    /// There is none of the name.
    #[error("there is no waypoint {0}")]
    NotThere(String),
    /// A Gateway that is something else.
    #[error(
        "the Gateway {name} is of class {class:?}, which is no waypoint; choose another name with --name"
    )]
    NoWaypoint { name: String, class: String },
    /// It took too long.
    #[error("waypoint {name} is not ready after {seconds} s: {told}")]
    NotReady { name: String, seconds: u64, told: String },
}

/// Runs `waypoint`.
pub(crate) fn run(
    place: impl Fn() -> Result<Place, crate::place::PlaceError>,
    namespace: Option<&str>,
    args: &WaypointArgs,
) -> Outcome {
    let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
    match &args.action {
        WaypointAction::Generate(asked) => {
            say(serde_saphyr::to_string(&gateway::gateway(namespace, asked))?.trim_end());
            Ok(ExitCode::SUCCESS)
        }
        WaypointAction::Apply(apply) => self::apply(&place()?, namespace, apply),
        WaypointAction::List(show) => list(&place()?, namespace, show),
        WaypointAction::Status(show) => status(&place()?, namespace, show),
        WaypointAction::Delete(delete) => self::delete(&place()?, namespace, delete),
    }
}

fn apply(place: &Place, namespace: &str, apply: &WaypointApply) -> Outcome {
    let Place::Cluster(cluster) = place else {
        return Err(WaypointError::OfFiles(gateway::words(namespace, &apply.gateway)).into());
    };
    let wanted = gateway::gateway(namespace, &apply.gateway);
    let name = gateway::name(&apply.gateway);
    let shown = format!("{namespace}/{name}");
    blocking(async {
        let gateways = Gateways::connect(cluster).await?;
        if let Some(there) = gateways.get(namespace, &name).await?
            && !gateway::is_waypoint(&there)
        {
            let class = show::text(&there, "/spec/gatewayClassName").to_owned();
            return Err(WaypointError::NoWaypoint { name: shown, class }.into());
        }
        gateways.apply(&wanted).await?;
        say(&format!("✅ waypoint {shown} applied"));
        if let Some(account) = &apply.gateway.service_account
            && !gateways.has_account(namespace, account).await?
        {
            complain(&format!("⚠️ Warning: there is no service account {namespace}/{account} yet"));
        }
        if apply.enroll_namespace {
            let ambient = gateways.enroll(namespace, &name).await?;
            say(&format!("✅ namespace {namespace} labeled with \"istio.io/use-waypoint: {name}\""));
            if !ambient {
                complain(&format!(
                    "⚠️ Warning: namespace is not enrolled in ambient. Consider running\tkubectl label namespace \
                     {namespace} istio.io/dataplane-mode=ambient"
                ));
            }
        }
        if apply.wait {
            wait(&gateways, namespace, &name, apply.timeout).await?;
            say(&format!("✅ waypoint {shown} is ready!"));
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Waits until a waypoint is programmed.
async fn wait(
    gateways: &Gateways,
    namespace: &str,
    name: &str,
    seconds: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        let there = gateways.get(namespace, name).await?;
        let shown = || format!("{namespace}/{name}");
        let Some(there) = there else { return Err(WaypointError::NotThere(shown()).into()) };
        if show::is_programmed(&there) {
            return Ok(());
        }
        if Instant::now() > end {
            let told = show::told(&there);
            return Err(WaypointError::NotReady { name: shown(), seconds, told }.into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The waypoints of a namespace, or of all.
fn waypoints(place: &Place, namespace: Option<&str>) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let mut found = match place {
        Place::Machine(_) => {
            let query = namespace.map(|namespace| format!("?namespace={namespace}")).unwrap_or_default();
            match ask(place, "GET", &format!("/objects/Gateway{query}"))? {
                Value::Array(all) => all,
                _ => Vec::new(),
            }
        }
        Place::Cluster(cluster) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { Gateways::connect(cluster).await?.list(namespace).await })?
        }
    };
    found.retain(gateway::is_waypoint);
    found.sort_by_key(|one| (show::namespace(one).to_owned(), show::name(one).to_owned()));
    Ok(found)
}

fn list(place: &Place, namespace: &str, args: &WaypointShow) -> Outcome {
    let namespace = Some(namespace).filter(|_| !args.all_namespaces);
    let mut found = waypoints(place, namespace)?;
    found.retain(|one| args.name.as_deref().is_none_or(|name| show::name(one) == name));
    match args.output {
        Some(VersionFormat::Json) => say(&format!("{:#}", show::json(&found))),
        None if found.is_empty() => say("No waypoints found."),
        None => say(show::list(&found, args.all_namespaces).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::disallowed_methods, reason = "this command has no other task")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// 1 unless all of them are programmed.
fn status(place: &Place, namespace: &str, args: &WaypointShow) -> Outcome {
    let within = Some(namespace).filter(|_| !args.all_namespaces);
    let end = Instant::now() + Duration::from_secs(if args.wait { args.timeout } else { 0 });
    let found = loop {
        let mut found = waypoints(place, within)?;
        found.retain(|one| args.name.as_deref().is_none_or(|name| show::name(one) == name));
        if Instant::now() >= end || (!found.is_empty() && found.iter().all(show::is_programmed)) {
            break found;
        }
        pause(LOOK);
    };
    if let (Some(name), true) = (&args.name, found.is_empty()) {
        return Err(WaypointError::NotThere(format!("{namespace}/{name}")).into());
    }
    match args.output {
        Some(VersionFormat::Json) => say(&format!("{:#}", show::json(&found))),
        None if found.is_empty() => say("No waypoints found."),
        None => say(show::status(&found, args.all_namespaces).trim_end()),
    }
    let all = found.iter().all(show::is_programmed);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn delete(place: &Place, namespace: &str, args: &WaypointDelete) -> Outcome {
    let Place::Cluster(cluster) = place else { return Err(WaypointError::InFiles.into()) };
    let there = waypoints(place, Some(namespace))?;
    let names = gateway::chosen(&there, args);
    if names.is_empty() && !args.all && args.service_account.is_none() {
        return Err(WaypointError::Unnamed.into());
    }
    if names.is_empty() {
        say("No waypoints found.");
        return Ok(ExitCode::SUCCESS);
    }
    blocking(async {
        let gateways = Gateways::connect(cluster).await?;
        let mut done = true;
        for name in names {
            if there.iter().any(|one| show::name(one) == name) && gateways.delete(namespace, &name).await? {
                say(&format!("waypoint {namespace}/{name} deleted"));
            } else {
                complain(&format!("waypoint {namespace}/{name} not found"));
                done = false;
            }
        }
        Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
