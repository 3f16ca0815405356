//! What a server takes of memory for each port: `cargo bench -p portcullis --bench memory [-- PORTS]`, as root.
//!
//! The ports are made by the use cases, in a store in a file, as Nova makes them: no name, a device's id and owner, a
//! host, an IPv4 address (of half of them an IPv6 address, too), the project's default group and one of their own kind.
//! Then a server of ours is started on that file; no agent follows it.

mod support;

use conformance::lab::Lab;
use control::objects::{Quota, Resource};
use control::{
    AskedBinding, Caller, Control, Failed, NewGroup, NewNetwork, NewPort, NewSubnet, Role,
};
use serde_json::Value;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use store::embedded::Embedded;
use support::{Api, start_server};

const PORTS: usize = 1_000_000;
const IN_NETWORK: usize = 1_000;
const IN_GROUP: usize = 50;
const ON_HOST: usize = 100;

fn main() {
    let asked = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let ports = asked.unwrap_or(PORTS);
    let none = Server::measure(0);
    println!("  ports  resident, MB  most ever  of each port, bytes  until it answers, s");
    let server = Server::measure(ports);
    let each = (server.resident - none.resident) * 1e6 / ports as f64;
    println!(
        "{ports:7}  {:12.1}  {:9.1}  {each:19.0}  {:19.1}",
        server.resident, server.most, server.opening
    );
}

struct Server {
    /// Megabytes.
    resident: f64,
    most: f64,
    /// Seconds.
    opening: f64,
}

impl Server {
    fn measure(ports: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(fill(&directory.path().join("store"), ports));
        drop(runtime);
        let lab = Lab::new("bme").expect("a lab; it needs root");
        let began = Instant::now();
        let server = start_server(&lab, directory.path());
        let mut api = Api::connect(lab.host());
        api.ask("GET", "/v2.0/networks?limit=1", &Value::Null);
        let opening = began.elapsed().as_secs_f64();
        server.wait_until_idle();
        Self {
            opening,
            resident: server.memory_mb("VmRSS"),
            most: server.memory_mb("VmHWM"),
        }
    }
}

async fn fill(path: &Path, ports: usize) {
    let store = Arc::new(Embedded::open(path).expect("a store"));
    let limits = Resource::ALL.map(|resource| (resource, -1)).into();
    let quota = Quota { limits };
    let control = Control::open_with(store, Vec::new(), quota).await;
    let control = control.expect("it opens");
    for first in (0..ports).step_by(IN_NETWORK) {
        let number = first / IN_NETWORK;
        let user = Caller {
            user: "bench".to_owned(),
            project: ids(0, number).as_str().into(),
            role: Role::Admin,
        };
        let last = ports.min(first + IN_NETWORK);
        fill_project(&control, &user, number, first..last)
            .await
            .expect("what is asked for is sound");
    }
}

/// With one network.
async fn fill_project(
    control: &Control,
    user: &Caller,
    number: usize,
    ports: Range<usize>,
) -> Result<(), Failed> {
    let network = NewNetwork {
        name: format!("network-{number}"),
        ..NewNetwork::default()
    };
    let network = control
        .create_networks(user, vec![network])
        .await?
        .remove(0);
    let mut prefixes = vec!["10.0.0.0/16".to_owned()];
    if number % 2 == 1 {
        prefixes.push(format!("2001:db8:{number:x}::/64"));
    }
    let subnets = prefixes.into_iter().map(|prefix| NewSubnet {
        network: network.to_string(),
        prefix,
        ..NewSubnet::default()
    });
    control.create_subnets(user, subnets.collect()).await?;
    let usual = control.default_group(user, &user.project).await?;
    for first in ports.clone().step_by(IN_GROUP) {
        let group = NewGroup {
            project: None,
            name: format!("group-{first}"),
            description: String::new(),
            stateful: true,
        };
        let group = control.create_groups(user, vec![group]).await?.remove(0);
        let numbers = first..ports.end.min(first + IN_GROUP);
        let new = numbers.map(|number| NewPort {
            network: network.to_string(),
            groups: Some(vec![usual.to_string(), group.to_string()]),
            device_id: ids(1, number),
            device_owner: "compute:nova".to_owned(),
            binding: AskedBinding {
                host: Some(format!("compute-{:05}.example.org", number / ON_HOST)),
                ..AskedBinding::default()
            },
            ..NewPort::default()
        });
        control.create_ports(user, new.collect()).await?;
    }
    Ok(())
}

/// As long as a UUID.
fn ids(kind: usize, number: usize) -> String {
    format!("{kind:08x}-0000-4000-8000-{number:012x}")
}
