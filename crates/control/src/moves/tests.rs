use super::*;
use crate::trial::{Site, admin, check_refused, member};
use crate::{AskedBinding, PortPatch};

const FLOWS: &[u8] = b"flows";

async fn bind(site: &Site, port: &PortId, host: Option<&str>, moving_to: Option<&str>) {
    let patch = PortPatch {
        binding: AskedBinding {
            host: host.map(str::to_owned),
            moving_to: moving_to.map(str::to_owned),
            ..Default::default()
        },
        ..Default::default()
    };
    let who = admin();
    let bound = site.control.update_port(&who, port.as_str(), patch, None);
    bound.await.expect("an admin may");
}

/// On `h1`.
async fn site() -> (Site, PortId) {
    let site = Site::new().await;
    let network = site.network(&member("red"), false).await;
    site.subnet(&member("red"), &network, "10.0.0.0/29").await;
    let port = site.port(&member("red"), &network).await;
    bind(&site, &port, Some("h1"), None).await;
    (site, port)
}

fn part(port: &PortId, part: u32) -> Departed {
    Departed {
        port: port.clone(),
        part,
        flows: [FLOWS, &[part as u8]].concat(),
        age: Duration::ZERO,
    }
}

async fn depart(site: &Site, from: &str, departed: &Departed) -> Result<(), Failed> {
    let from = HostId::from(from);
    site.control.flows_departed(&from, departed).await
}

/// Parts that wait for the host, in order.
async fn waiting(site: &Site, host: &str) -> Vec<Arrived> {
    let (host, mut seen, mut all) = (HostId::from(host), BTreeSet::new(), Vec::new());
    while let Some(arrived) = site
        .control
        .flows_for(&host, &mut seen)
        .await
        .expect("memory answers")
    {
        all.push(arrived);
    }
    all
}

async fn check(site: &Site, host: &str, expected: &[u8]) {
    let parts = waiting(site, host).await;
    let parts = Vec::from_iter(parts.iter().map(|part| part.flows[FLOWS.len()]));
    assert_eq!(parts, expected, "for {host}");
}

#[tokio::test]
async fn flows_go_to_the_host_that_their_port_goes_to_and_once() {
    let (site, port) = site().await;
    bind(&site, &port, None, Some("h2")).await;
    for number in [0, 1, 1] {
        let departed = depart(&site, "h1", &part(&port, number)).await;
        departed.expect("it is its port");
    }
    // At any server, while the port is on its way, and there.
    let other = site.beside().await;
    check(&other, "h2", &[0, 1]).await;
    for host in ["h1", "h3"] {
        check(&site, host, &[]).await;
    }
    bind(&site, &port, Some("h2"), None).await;
    let late = depart(&site, "h1", &part(&port, 2)).await;
    late.expect("it had it until now");
    check(&site, "h2", &[0, 1, 2]).await;
    let first = waiting(&site, "h2").await.remove(0);
    let taken = |host: &str, id: &str| {
        let (host, id, control) = (HostId::from(host), id.to_owned(), &site.control);
        async move { control.flows_taken(&host, &id).await.expect("it is noted") }
    };
    taken("h3", &first.id).await;
    taken("h2", "another").await;
    check(&site, "h2", &[0, 1, 2]).await;
    taken("h2", &first.id).await;
    taken("h2", &first.id).await;
    check(&site, "h2", &[1, 2]).await;
    site.control.sweep_flows().await.expect("it is swept");
    check(&site, "h2", &[1, 2]).await;
}

/// C9: a host can't put flows into a port that isn't its own, and leaving its hands.
#[tokio::test]
async fn a_host_hands_on_flows_of_its_own_leaving_ports_only() {
    let (site, port) = site().await;
    let refused = |from: &'static str| depart_refused(&site, from, &port);
    for from in ["h1", "h2", "h3"] {
        refused(from).await;
    }
    bind(&site, &port, None, Some("h2")).await;
    for from in ["h2", "h3"] {
        refused(from).await;
    }
    // It goes elsewhere: what is on its way goes to nobody, and no more is taken.
    let departed = depart(&site, "h1", &part(&port, 0)).await;
    departed.expect("it is on its way");
    bind(&site, &port, None, Some("")).await;
    check(&site, "h2", &[]).await;
    refused("h1").await;
    bind(&site, &port, Some("h2"), None).await;
    check(&site, "h2", &[]).await;
    refused("h1").await;
    // Whoever had it before the last move has no say.
    bind(&site, &port, None, Some("h3")).await;
    bind(&site, &port, Some("h3"), None).await;
    refused("h1").await;
    depart(&site, "h2", &part(&port, 0))
        .await
        .expect("it had it");
    let gone = part(&PortId::from("none"), 0);
    check_refused("no port", depart(&site, "h2", &gone).await, "PortNotFound");
    for beyond in [
        part(&port, MOST_PARTS),
        Departed {
            flows: vec![0; MOST_PART_BYTES + 1],
            ..part(&port, 0)
        },
    ] {
        check_refused("bound", depart(&site, "h2", &beyond).await, "TooMany");
    }
    let most = Departed {
        flows: vec![1; MOST_PART_BYTES],
        ..part(&port, MOST_PARTS - 1)
    };
    depart(&site, "h2", &most).await.expect("it fits");
}

async fn depart_refused(site: &Site, from: &str, port: &PortId) {
    let departed = depart(site, from, &part(port, 0)).await;
    check_refused(from, departed, "NotAuthorized");
}

#[tokio::test]
async fn what_is_of_no_use_any_more_is_swept() {
    let (site, port) = site().await;
    bind(&site, &port, None, Some("h2")).await;
    let old = |age: u64| Departed {
        age: Duration::from_secs(age),
        ..part(&port, age as u32 % 7)
    };
    for age in [70, 5] {
        depart(&site, "h1", &old(age))
            .await
            .expect("it is its port");
    }
    let fresh = waiting(&site, "h2").await;
    assert_eq!(fresh.len(), 1, "a minute is too late");
    assert!(
        (5..=6).contains(&fresh[0].age.as_secs()),
        "{:?}",
        fresh[0].age
    );
    assert_eq!(records(&site).await, 4);
    site.control.sweep_flows().await.expect("it is swept");
    assert_eq!(records(&site).await, 2);
    let who = admin();
    let deleted = site.control.delete_port(&who, port.as_str(), None);
    deleted.await.expect("an admin may");
    check(&site, "h2", &[]).await;
    site.control.sweep_flows().await.expect("it is swept");
    assert_eq!(records(&site).await, 0);
}

async fn records(site: &Site) -> usize {
    let listing = site.control.store().list(&store::KeyPrefix::all()).await;
    let records = listing.expect("memory answers").records;
    let of_moves = |key: &str| key.starts_with("moved/") || key.starts_with("flows/");
    records.iter().filter(|r| of_moves(r.key.as_str())).count()
}

#[tokio::test]
async fn the_old_host_has_a_minute() {
    let (site, port) = site().await;
    bind(&site, &port, None, Some("h2")).await;
    let stored = || Port::clone(&site.control.state().ports[&port]);
    let is_over = |port: &Port, at: Seconds| super::is_over(port, &Moment { at });
    assert!(!is_over(&stored(), u64::MAX), "it is on its way");
    bind(&site, &port, Some("h2"), None).await;
    let there = stored();
    let binding = there.binding.as_ref().expect("it is bound");
    let Some(Move::From { at, .. }) = binding.moving.as_deref() else {
        panic!("it came from somewhere: {binding:?}");
    };
    let later = [60, 61].map(|seconds| is_over(&there, at + seconds));
    assert_eq!(later, [false, true]);
}
