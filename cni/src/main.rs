//! A CNI plugin, chained behind whatever connects the node's pods: it asks the node's agent whether a pod belongs to the
//! mesh, and lets it start once its traffic is captured. It does nothing to the network itself.
//!
//! ```text
//! runtime ─ADD─► … ─► lateen-cni ─ /cmdadd ─► node agent: captured, or none of the mesh's: the pod starts
//!                         └─ no agent: only pods start that are none of the mesh's, as far as is known
//! ```

mod agent;
mod call;

use std::io::Read;
use std::process::ExitCode;

use call::{Answer, Environment};

/// Longest configuration read.
const LONGEST: u64 = 1 << 20;

fn main() -> ExitCode {
    let mut input = String::new();
    // What cannot be read is no JSON either, which the answer says.
    let _ = std::io::stdin().take(LONGEST).read_to_string(&mut input);
    let environment = Environment::read(|name| std::env::var(name).ok());
    match call::answer(&environment, &input) {
        Answer::Nothing => ExitCode::SUCCESS,
        Answer::Result(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Answer::Error(text) => {
            println!("{text}");
            ExitCode::FAILURE
        }
    }
}
