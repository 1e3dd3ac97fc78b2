//! `lateen get`: what the mesh holds, asked of ctrl, which knows objects, status conditions and which version of each
//! is in force. While ctrl does not answer, the same files are read here, without status.

mod kinds;
mod table;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use manifest::Folder;
use serde_json::Value;

use crate::Outcome;
use crate::args::{Format, GetArgs};
use crate::local::components::ctrl_admin;
use crate::local::manifests::DEFAULT_NAMESPACE;
use crate::state::{self, MeshDir};

/// How long ctrl may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
enum GetError {
    #[error("there is no {kind} {name:?}{place}")]
    NotFound { kind: String, name: String, place: String },
    #[error("{0}")]
    NoKind(String),
    #[error("ctrl answers {0}; see: lateen logs ctrl")]
    Refused(String),
    #[error("ctrl answers what is no list of objects: {0}")]
    Malformed(serde_json::Error),
}

/// Runs `get`.
pub(crate) fn run(mesh: Option<&str>, namespace: Option<&str>, args: &GetArgs) -> Outcome {
    let mesh = state::select(mesh)?;
    let namespace = if args.all_namespaces { None } else { Some(namespace.unwrap_or(DEFAULT_NAMESPACE)) };
    let (kinds, name) = match args.kind.split_once('/') {
        Some((kind, name)) => (kind, Some(name)),
        None => (args.kind.as_str(), args.name.as_deref()),
    };
    let mut found = Vec::new();
    for kind in kinds.split(',') {
        let kind = kinds::canonical(kind);
        let namespace = namespace.filter(|_| !kinds::is_cluster_wide(&kind));
        let mut objects = objects(&mesh, &kind, namespace)?;
        objects.retain(|object| name.is_none_or(|name| table::text(object, "/metadata/name") == name));
        if let (true, Some(name)) = (objects.is_empty(), name) {
            let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
            return Err(GetError::NotFound { kind, name: name.to_owned(), place }.into());
        }
        found.push((kind, objects));
    }
    print(&found, namespace, args)?;
    Ok(ExitCode::SUCCESS)
}

fn print(
    found: &[(String, Vec<Value>)],
    namespace: Option<&str>,
    args: &GetArgs,
) -> Result<(), Box<dyn std::error::Error>> {
    let single = args.name.is_some() || args.kind.contains('/');
    let all = || found.iter().flat_map(|(_, objects)| objects);
    let whole = || match all().next() {
        Some(object) if single && all().count() == 1 => object.clone(),
        _ => serde_json::json!({"apiVersion": "v1", "kind": "List", "items": all().collect::<Vec<_>>()}),
    };
    let text = match args.output {
        Some(Format::Json) => format!("{:#}\n", whole()),
        Some(Format::Yaml) => serde_saphyr::to_string(&whole())?,
        Some(Format::Name) => {
            let line = |object: &Value| {
                let kind = table::text(object, "/kind").to_ascii_lowercase();
                format!("{kind}/{}\n", table::text(object, "/metadata/name"))
            };
            all().map(line).collect()
        }
        None | Some(Format::Wide) => {
            let wide = args.output == Some(Format::Wide);
            let with_kind = found.len() > 1;
            let tables = found.iter().filter(|(_, objects)| !objects.is_empty());
            let tables = tables
                .map(|(kind, objects)| table::render(kind, objects, namespace.is_none(), wide, with_kind));
            tables.collect::<Vec<_>>().join("\n")
        }
    };
    if text.is_empty() || (all().next().is_none() && args.output.is_none()) {
        let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
        eprintln!("nothing found{place}");
    }
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// The objects of a kind, by namespace and name.
fn objects(
    mesh: &MeshDir,
    kind: &str,
    namespace: Option<&str>,
) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let socket = ctrl_admin(mesh);
    let mut objects = match UnixStream::connect(&socket) {
        Ok(stream) => ask(stream, kind, namespace)?,
        Err(error) => {
            if socket.exists() {
                eprintln!("ctrl does not answer ({error}); this is from the files, without status");
            }
            from_files(mesh, kind, namespace)?
        }
    };
    objects.sort_by_key(|object| {
        (
            table::text(object, "/metadata/namespace").to_owned(),
            table::text(object, "/metadata/name").to_owned(),
        )
    });
    Ok(objects)
}

/// One HTTP/1.0 request: the answer ends with the connection.
fn ask(
    mut stream: UnixStream,
    kind: &str,
    namespace: Option<&str>,
) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let query = namespace.map(|namespace| format!("?namespace={namespace}")).unwrap_or_default();
    write!(stream, "GET /objects/{kind}{query} HTTP/1.0\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let (head, body) = split_answer(&answer).ok_or_else(|| GetError::Refused("nothing".to_owned()))?;
    if head.split(' ').nth(1).is_none_or(|status| status != "200") {
        let text = String::from_utf8_lossy(body).trim().to_owned();
        return Err(
            if head.contains(" 404 ") { GetError::NoKind(text) } else { GetError::Refused(text) }.into()
        );
    }
    let value: Value = serde_json::from_slice(body).map_err(GetError::Malformed)?;
    Ok(match value {
        Value::Array(objects) => objects,
        Value::Object(mut list) => match list.remove("items") {
            Some(Value::Array(objects)) => objects,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    })
}

fn split_answer(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((std::str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]))
}

fn from_files(mesh: &MeshDir, kind: &str, namespace: Option<&str>) -> io::Result<Vec<Value>> {
    let file = mesh.read_mesh_file()?;
    let mut folder = Folder::new(file.sources).with_state(mesh.objects());
    folder.scan();
    let objects = folder.objects().filter(|object| object.kind == kind);
    let here =
        objects.filter(|object| namespace.is_none() || object.metadata.namespace.as_deref() == namespace);
    Ok(here.map(|object| object.raw.clone()).collect())
}
