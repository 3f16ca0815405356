//! Clients that others have written: openstacksdk, and the `openstack` command, in the versions that the Makefile names.

use crate::bed::{Bed, Plan};
use api::Identity;
use control::objects::Quota;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::Command;

/// Of `make setup-test`.
pub(crate) fn program(name: &str) -> PathBuf {
    let venv = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/venv/bin/");
    let program = PathBuf::from(format!("{venv}{name}"));
    assert!(
        program.exists(),
        "{} isn't there: run make setup-test",
        program.display()
    );
    program
}

/// One project, as on a single host.
async fn bed() -> Bed {
    let plan = Plan {
        identity: Identity::Nobody {
            project: "default".into(),
        },
        quota: Quota::default(),
        ..Plan::default()
    };
    plan.start().await
}

pub(crate) async fn run(mut command: Command) -> Result<String, String> {
    // Nothing of the developer's own cloud.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OS_")) {
        command.env_remove(name);
    }
    let ran = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let ran = ran.expect("the program can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match ran.status.success() {
        true => Ok(text(&ran.stdout)),
        false => Err(text(&ran.stdout) + &text(&ran.stderr)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openstacksdk_drives_the_server() {
    let bed = bed().await;
    let mut sdk = Command::new(program("python"));
    sdk.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sdk.py"));
    sdk.arg(format!("http://{}", bed.address));
    let said = run(sdk).await.unwrap_or_else(|said| panic!("{said}"));
    assert!(said.ends_with("done\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openstack_command_drives_the_server() {
    let bed = bed().await;
    let openstack = async |line: &str| {
        let mut command = Command::new(program("openstack"));
        command.args(["--os-auth-type", "none", "--os-endpoint"]);
        command.arg(format!("http://{}", bed.address));
        command.args(line.split_whitespace());
        run(command).await
    };
    let says = async |line: &str| {
        let said = openstack(&format!("{line} -f json")).await;
        let said = said.unwrap_or_else(|said| panic!("{line}: {said}"));
        serde_json::from_str::<Value>(&said).unwrap_or_else(|e| panic!("{line}: {e}: {said}"))
    };
    let does = async |line: &str| {
        let said = openstack(line).await;
        said.unwrap_or_else(|said| panic!("{line}: {said}"))
    };
    let group = says("security group create web --description site --tag red").await;
    assert_eq!(group["name"], "web");
    let rule = says(
        "security group rule create web --protocol tcp --dst-port 80:90 --remote-ip 10.0.0.0/8",
    )
    .await;
    assert_eq!(
        (&rule["port_range_min"], &rule["port_range_max"]),
        (&80.into(), &90.into())
    );
    let again = openstack(
        "security group rule create web --protocol tcp --dst-port 80:90 --remote-ip 10.0.0.0/8",
    );
    let again = again.await.expect_err("it is a duplicate");
    assert!(again.contains("already exists"), "{again}");
    let rules = says("security group rule list web").await;
    assert_eq!(rules.as_array().map(Vec::len), Some(3));
    let groups = says("security group list --tags red").await;
    assert_eq!(groups[0]["Name"], "web");
    let shown = says("security group show web").await;
    assert_eq!(shown["rules"].as_array().map(Vec::len), Some(3));
    says("address group create office --address 192.0.2.0/24").await;
    says("network create net").await;
    says("subnet create sub --network net --subnet-range 10.0.0.0/24").await;
    let port = says("port create p --network net --security-group web").await;
    assert_eq!(port["security_group_ids"][0], group["id"]);
    let ports = says("port list --network net").await;
    assert_eq!(ports[0]["Name"], "p");
    does("port set p --no-security-group --name q").await;
    does("security group delete web").await;
    let policy =
        "network rbac create --type network --action access_as_shared --target-all-projects net";
    assert_eq!(says(policy).await["target_project_id"], "*");
}
