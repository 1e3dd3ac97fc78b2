//! The demo's bookshop: one program, several roles, with the ports, paths, headers and environment of Istio's
//! Bookinfo, so that its manifests and exercises fit.

mod client;
mod headers;
mod roles;
mod server;

use std::net::{IpAddr, Ipv6Addr};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// What this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// The page that customers see; asks details and reviews.
    Productpage,
    /// Facts about a book.
    Details,
    /// What readers say; versions v2 and v3 ask ratings.
    Reviews,
    /// Stars.
    Ratings,
}

/// A small bookshop, one service a process.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Which service to be.
    #[arg(long)]
    role: Role,
    /// The address to listen on; the default takes IPv4 and IPv6.
    #[arg(long, default_value_t = IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    bind: IpAddr,
    /// The port to listen on.
    #[arg(long, default_value_t = 9080)]
    port: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let shop = match args.role {
        Role::Productpage => roles::Shop::Productpage(Box::new(roles::productpage::Productpage::from_env())),
        Role::Details => roles::Shop::Details,
        Role::Reviews => roles::Shop::Reviews(Box::new(roles::reviews::Reviews::from_env())),
        Role::Ratings => roles::Shop::Ratings(roles::ratings::Ratings::from_env()),
    };
    match server::serve(args.bind, args.port, shop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bookshop: cannot listen on port {}: {error}", args.port);
            ExitCode::FAILURE
        }
    }
}
