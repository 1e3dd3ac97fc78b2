//! The table for people: `docs/verdicts.md`.

use std::fmt::Write;

use super::expected::{By, Expected, How, expected};
use super::manifests::policies;
use super::policies::{Case, SERVERS, cases};
use super::way::{LOBBY, Way, way};
use super::{Binding, Cell, Client, Request, Target};

const HEAD: &str = "# Verdicts

What comes of a request, by who asks, whom, how that is bound to a waypoint, and which policies there are. `e2e/tests/verdicts.rs`
asks a running mesh for every cell (status, body, whom the server saw, and the cause that a log names); this page is printed from
the same table (`e2e/src/verdicts.rs`) by `make docs`.

## Who stands in front

For clients of the mesh, and for other waypoints. Clients without an agent (plaintext, hostNetwork) know no waypoints: they always get
to the pod itself.

";

const JUDGING: &str = "
- A waypoint judges requests by every policy that selects the server's pod and by those that are attached to what was asked for, or to
  what its rules lead to. The pod's agent leaves that to it.
- Where no waypoint is in front, the pod's agent judges connections. It cannot see methods and paths: an ALLOW rule that needs them does
  not match, a DENY rule that needs them does. So does a waypoint with a connection that is no HTTP.
- A waypoint whose rules lead to a server of others goes there as any client would, as itself: behind another waypoint it is judged
  by that one, under its own identity, and without one by the pod's agent.
- What is attached (`targetRefs`) is judged where it is attached, and by nobody for what goes around that.
- `declared, never ready` is as if there were no waypoint. Once one has been ready, nothing goes around it any more.

Servers are in namespaces with the label; `friend` and `stranger` are accounts of other pods of the mesh; *another waypoint* is
`hall/lobby`, asked by `friend`. Each cell is about `GET /open`, `GET /closed`, `POST /open`, `GET /closed` to a port of which nothing says that it is HTTP,
and a connection of plain bytes to another port (the last two not for *another waypoint*). *Refuses* is a connection that is reset before any answer, *the waypoint* the one of the table above.
What is true of several is said once.
";

/// The page.
pub fn page() -> String {
    let mut page = String::from(HEAD);
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let titles = [vec![String::from("binding")], Target::ALL.map(|one| one.title().to_owned()).to_vec()];
    page.push_str(&line(&titles.concat()));
    page.push_str("|---|---|---|---|\n");
    for binding in Binding::ALL {
        let mut cells = vec![binding.title().to_owned()];
        cells.extend(Target::ALL.map(|target| match way(target, binding) {
            Way::Straight => String::from("the pod's agent"),
            Way::By(waypoint) => format!("`{}/{}`", waypoint.namespace, waypoint.name),
            Way::NoReplica(waypoint) => {
                format!("nobody: `{}/{}` has no replica", waypoint.namespace, waypoint.name)
            }
        }));
        page.push_str(&line(&cells));
    }
    page.push_str(JUDGING);
    for case in cases() {
        page.push_str(&section(&case));
    }
    page
}

/// Clients that are alike in everything: a column each.
const COLUMNS: [(&str, &[Client]); 4] = [
    ("friend", &[Client::Friend]),
    ("stranger", &[Client::Stranger]),
    ("plaintext, hostNetwork", &[Client::Plaintext, Client::HostNear, Client::HostFar]),
    ("another waypoint", &[Client::Waypoint]),
];

fn section(case: &Case) -> String {
    let mut text = format!("\n## {}\n\n", capitalized(case.title));
    let objects = policies(case);
    if let Some(first) = objects.split("---\n").find(|object| !object.is_empty()) {
        // One of a kind: the others are the same for other namespaces.
        let kinds = case.policies.len().max(1);
        let shown = objects.split("---\n").filter(|object| !object.is_empty());
        let shown: Vec<&str> = match kinds {
            1 => vec![first],
            _ => shown.filter(|object| object.contains("namespace: test")).collect(),
        };
        let _ = writeln!(text, "```yaml\n{}```\n", shown.join("---\n"));
    }
    let titles = COLUMNS.map(|(title, _)| title).join(" | ");
    let _ = writeln!(text, "| binding: asked for | {titles} |\n|---|---|---|---|---|");
    for (asked, cells) in rows(case) {
        let mut names: Vec<(Binding, Vec<Target>)> = Vec::new();
        for (binding, target) in asked {
            match names.iter_mut().find(|(other, _)| *other == binding) {
                Some((_, targets)) => targets.push(target),
                None => names.push((binding, vec![target])),
            }
        }
        let names: Vec<String> = names.iter().map(|(binding, targets)| row_name(*binding, targets)).collect();
        let _ = writeln!(text, "| {} | {} |", names.join("<br>"), cells.join(" | "));
    }
    let causes = causes(case);
    if !causes.is_empty() {
        let _ = writeln!(text, "\nCauses named: {}.", causes.join("; "));
    }
    text
}

/// Of which bindings and targets it is true, and what there is to say of each column's clients.
type Row = (Vec<(Binding, Target)>, [String; 4]);

/// What there is to say, each once.
fn rows(case: &Case) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for binding in Binding::ALL {
        for target in Target::ALL {
            let cells = COLUMNS.map(|(_, clients)| cell(case, clients, target, binding));
            let alike = |other: &[String; 4]| {
                let mut pairs = cells.iter().zip(other);
                pairs.all(|(one, other)| one == other || one == NOT_ASKED || other == NOT_ASKED)
            };
            match rows.iter_mut().find(|(_, other)| alike(other)) {
                Some((asked, other)) => {
                    asked.push((binding, target));
                    let known = other.iter_mut().zip(cells).filter(|(other, _)| *other == NOT_ASKED);
                    known.for_each(|(other, cell)| *other = cell);
                }
                None => rows.push((vec![(binding, target)], cells)),
            }
        }
    }
    rows
}

/// A combination that makes no sense.
const NOT_ASKED: &str = "–";

fn row_name(binding: Binding, targets: &[Target]) -> String {
    let titles: Vec<&str> = targets.iter().map(|target| target.title()).collect();
    let asked = if targets.len() == Target::ALL.len() { String::from("any") } else { titles.join(", ") };
    format!("{}: {asked}", binding.title())
}

fn capitalized(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

/// What comes of all requests of clients that are alike.
fn cell(case: &Case, clients: &[Client], target: Target, binding: Binding) -> String {
    let of = |client: Client| {
        let mut groups: Vec<(Vec<String>, String)> = Vec::new();
        let cells = Cell::all().into_iter();
        for cell in cells.filter(|cell| (cell.client, cell.target, cell.binding) == (client, target, binding))
        {
            let (what, comes) = (request(cell.request), outcome(&expected(case, cell)));
            match groups.iter_mut().find(|(_, other)| *other == comes) {
                Some((requests, _)) => requests.push(what),
                None => groups.push((vec![what], comes)),
            }
        }
        match &groups[..] {
            [] => NOT_ASKED.to_owned(),
            [(_, comes)] => comes.clone(),
            several => {
                let each =
                    several.iter().map(|(requests, comes)| format!("{}: {comes}", requests.join(", ")));
                each.collect::<Vec<_>>().join("<br>")
            }
        }
    };
    let mut all: Vec<String> = clients.iter().map(|client| of(*client)).collect();
    all.dedup();
    // Were they not alike, each would be there.
    all.join("<br>or ")
}

fn request(request: Request) -> String {
    let head = request.head().map_or(String::from("bytes"), |(method, path)| format!("`{method} {path}`"));
    if request == Request::Undeclared { head + " (undeclared port)" } else { head }
}

fn outcome(expected: &Expected) -> String {
    let text = match expected {
        Expected::Answer(None) => "passes",
        Expected::Answer(Some(LOBBY)) => "passes, from `lobby`",
        Expected::Answer(Some(_)) => "passes, by the waypoint",
        Expected::Refusal { how, by, .. } => match (how, by) {
            (How::Forbidden, By::Waypoint(LOBBY)) => "**403** by `lobby`",
            (How::Forbidden, By::Waypoint(_)) => "**403** by the waypoint",
            (_, By::Waypoint(_)) => "**waypoint refuses**",
            (How::Unavailable, By::Agent) => "**503**: the agent refuses `lobby`",
            (_, By::Agent) => "**agent refuses**",
            (How::Unavailable, By::NoReplica) => "**503**: no replica",
            (_, By::NoReplica) => "**refused**: no replica",
        },
    };
    text.to_owned()
}

/// The causes that logs name, each once.
fn causes(case: &Case) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for cell in Cell::all() {
        if let Expected::Refusal { by: By::Agent | By::Waypoint(_), cause, .. } = expected(case, cell) {
            let general =
                SERVERS.iter().fold(cause, |cause, name| cause.replace(&format!(" {name}/"), " NAMESPACE/"));
            let general = format!("`{general}…`");
            if !all.contains(&general) {
                all.push(general);
            }
        }
    }
    all
}
