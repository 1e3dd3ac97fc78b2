//! What clients hold of what the waypoint has once for all of them.

use hbone::account::{Account, AccountLimits};

use super::requests::{application, get, http1, whole};
use super::world::{HTTP, VIP, World, run};

#[test]
fn a_client_that_has_its_share_of_connections_opens_no_more() {
    run(async {
        let world = World::new(application).await;
        let mut client = http1(&world, HTTP).await;
        let most = world.waypoint.bounds.connections;
        let connections = &world.waypoint.connections;
        // Each of the others takes its share of what the ones before have left, until there is nothing.
        let mut others = Vec::new();
        loop {
            let other = Account::new(AccountLimits::default());
            let before = others.len();
            others.extend(std::iter::from_fn(|| connections.take(&other, most)));
            if others.len() == before {
                break;
            }
        }
        let hits = || world.metric("lateen_limit_hits_total", &["limit=\"client_connections\""]);
        assert_eq!(hits(), Some(0.0));
        assert_eq!(world.connect_as("client", &format!("{VIP}:{HTTP}")).await.err(), Some(503));
        assert_eq!(hits(), Some(1.0));
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200, "what it has goes on");
        drop(others);
        assert_eq!(whole(http1(&world, HTTP).await.send_request(get("/")).await.unwrap()).await.0, 200);
    });
}
