//! `bench`: load generators, their server, and the table that sets proxies side by side.
//!
//! `bench table` builds two pods joined by a virtual cable for each variant (no proxy, ours, the peers),
//! drives the same load through all of them in turns, and prints ratios: absolute figures do not travel
//! from one machine to another. `bench serve` and `bench load` are the two ends it runs inside the pods.

mod compare;

mod certs;
mod congestion;
mod control;
mod frames;
mod isolate;
mod pinned;
mod process;
mod topology;
mod variants;

mod load;
mod measure;
mod relay;
mod rounds;
mod serve;

mod table;

mod scale;

mod agents;

mod attack;

mod http;
mod waypoint;

mod change;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Load generators and peers: the table of ratios.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Drives one kind of load at a `bench serve` and prints what it saw as one line of JSON.
    #[command(subcommand)]
    Load(load::Kind),
    /// Echoes, swallows, sends or holds, as each connection's first bytes ask.
    Serve {
        /// Where to listen.
        #[arg(long, value_name = "ADDR")]
        listen: SocketAddr,
    },
    /// Copies between plain sockets and does nothing else: half of the variant `relays`.
    Relay {
        /// Where to listen.
        #[arg(long, value_name = "ADDR")]
        listen: SocketAddr,
        /// Where to connect to.
        #[arg(long, value_name = "ADDR")]
        to: SocketAddr,
    },
    /// Sets variants side by side and prints one table of ratios.
    Table(compare::Options),
    /// Attacks, each on each variant, with a bystander who should not notice.
    Attack(attack::Options),
    /// One attacker, as `attack` starts it.
    Strike(attack::strike::Strike),
    /// What the control attacks: takes everything, answers nothing.
    Sink(attack::sink::Options),
    /// Our waypoint, Envoy and agentgateway side by side, in requests, processor time, latency and memory.
    Waypoint(waypoint::Options),
    /// The time from a file written to the first request routed by it.
    Change(change::Options),
    /// Drives requests through tunnels at a waypoint and prints what it saw as one line of JSON.
    LoadHttp(http::client::Options),
    /// Ends a waypoint's tunnels and answers the requests in them.
    ServeHttp(http::server::Options),
    /// A controller of 100,000 pods and its agent, and an agent that asks for 500 of a million.
    Scale(scale::Options),
    /// A controller with a thousand simulated agents: what they cost it, and how soon each has a change.
    Agents(agents::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Load(kind) => load::run(&kind).map_err(|error| error.to_string()),
        Command::Serve { listen } => serve::run(listen).map_err(|error| error.to_string()),
        Command::Relay { listen, to } => relay::run(listen, to).map_err(|error| error.to_string()),
        Command::Table(options) => compare::run(&options).map_err(|error| error.to_string()),
        Command::Attack(options) => attack::run(&options).map_err(|error| error.to_string()),
        Command::Strike(strike) => attack::strike::run(&strike).map_err(|error| error.to_string()),
        Command::Sink(options) => attack::sink::run(&options).map_err(|error| error.to_string()),
        Command::Waypoint(options) => waypoint::run(&options).map_err(|error| error.to_string()),
        Command::Change(options) => change::run(&options).map_err(|error| error.to_string()),
        Command::LoadHttp(options) => http::client::print(&options).map_err(|error| error.to_string()),
        Command::ServeHttp(options) => http::server::run(&options).map_err(|error| error.to_string()),
        Command::Scale(options) => scale::run(&options).map_err(|error| error.to_string()),
        Command::Agents(options) => agents::run(&options).map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
