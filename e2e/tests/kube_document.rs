//! docs/kubernetes.md as a stranger follows it: every command of the page, in its order, on a cluster of two nodes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use e2e::cluster::Cluster;
use e2e::report::{counted, told};

/// A block of commands, and the heading that it stands under.
#[derive(Debug, PartialEq, Eq)]
struct Block<'a> {
    heading: &'a str,
    /// The first of its lines in the document.
    line: usize,
    commands: String,
}

/// What stands between ```` ```sh ```` and the end of the block.
fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let (mut heading, mut inside) = ("", false);
    for (number, line) in page.lines().enumerate() {
        match line {
            "```sh" => {
                inside = true;
                blocks.push(Block { heading, line: number + 2, commands: String::new() });
            }
            "```" => inside = false,
            _ if inside => {
                if let Some(block) = blocks.last_mut() {
                    block.commands.push_str(line);
                    block.commands.push('\n');
                }
            }
            _ => heading = line.strip_prefix("## ").unwrap_or(heading),
        }
    }
    blocks
}

/// What the commands of a heading print together: they do not only succeed, they show what the page says.
const SHOWN: [(&str, &[&str]); 7] = [
    ("Take a namespace into the mesh", &["three stars", "spiffe://cluster.local/ns/shop/sa/default"]),
    ("Who may call whom", &["allow policies exist, but none allowed (considered: shop/reviews)", "client-"]),
    ("Look into requests: a waypoint", &["waypoint shop/waypoint is ready", "three stars"]),
    ("Launch a version in the dark", &["three stars", "five stars"]),
    ("Shift traffic to it", &[" three stars", " five stars"]),
    (
        "Deny a method",
        &[
            "403 Forbidden",
            "stars",
            "explicitly denied by: shop/read-only (rule 0)",
            "waypoint/shop/waypoint-",
        ],
    ),
    (
        "A second control plane beside it",
        &[
            "ctrl/lateen-ctrl-canary-",
            "TAG    REVISION   NAMESPACES\nnext   canary     shop",
            "what stays: revision default",
        ],
    ),
];

#[test]
fn blocks_are_found_with_their_place() {
    let page = "# A\n## B\ntext\n```sh\none\ntwo\n```\n```text\nno\n```\n## C\n```sh\nthree\n```\n";
    let block = |heading, line, commands: &str| Block { heading, line, commands: commands.to_owned() };
    assert_eq!(blocks(page), [block("B", 5, "one\ntwo\n"), block("C", 13, "three\n")]);
}

#[test]
fn a_stranger_finds_the_way() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let blocks = blocks(&page);
    assert!(blocks.len() >= 10, "{} blocks", blocks.len());
    let Some(cluster) = Cluster::with_nodes("a_stranger_finds_the_way", 2) else { return };
    let mut begun = Instant::now();
    let mut heading = blocks[0].heading;
    let mut shown: BTreeMap<&str, String> = BTreeMap::new();
    for block in &blocks {
        if block.heading != heading {
            told(heading, begun);
            (heading, begun) = (block.heading, Instant::now());
        }
        if block.commands.contains("gateway-api/releases/") {
            // The same definitions from their Go module: a cluster of tests has no way to that address.
            cluster.define_gateway_api();
        }
        let done = cluster.shell(&block.commands);
        shown.entry(heading).or_default().push_str(&done.to_string());
        if !done.ok() {
            let pods = cluster.kubectl(&["get", "pods", "-A", "-o", "wide"]);
            let logs = cluster.kubectl(&[
                "logs",
                "-n",
                "istio-system",
                "-l",
                "app in (lateen-ctrl,lateen-node-agent)",
                "--prefix",
                "--tail=40",
            ]);
            panic!("docs/kubernetes.md, line {}:\n{}{done}\n{pods}\n{logs}", block.line, block.commands);
        }
    }
    told(heading, begun);
    for (heading, parts) in SHOWN {
        let said = shown.get(heading).map(String::as_str).unwrap_or_default();
        for part in parts {
            assert!(
                said.contains(part),
                "docs/kubernetes.md, {heading}: no {part:?} in what it shows:\n{said}"
            );
        }
    }
    counted(&format!("{} blocks of commands, under {} headings", blocks.len(), shown.len()));
}
