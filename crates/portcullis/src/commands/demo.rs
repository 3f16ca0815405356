//! `demo`: security groups on real packets, on a host made of namespaces.

use crate::demo;
use crate::failure::Failure;
use crate::plane::{PlaneArgs, PlaneName};
use clap::Args;

/// See security groups enforced: real machines' packets, every verdict beside the one expected
///
/// Builds a host with six machines out of network namespaces, enforces a policy file on them with
/// `portcullis run`, and sends real packets: who reaches whom, spoofing, rules that change under open
/// connections, an agent that is killed. Touches nothing of this machine's own network, and removes
/// what it made. With `--plane ovs` it is two hosts with an Open vSwitch each and a tunnel between them; with
/// `--cluster` a server and two hosts that follow it, and policy comes by the OpenStack API.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis demo
  portcullis demo --plane iptables --iptables legacy
  portcullis demo --plane ovs  two hosts; needs ovs-vswitchd, not its kernel module
  portcullis demo --cluster    by the `openstack` client, if it is here (PORTCULLIS_OPENSTACK names it)
  portcullis demo --keep       leaves the machines running, and prints how to look around
  portcullis demo --down       removes what was kept

Exit codes: 0 all verdicts as expected, 1 not all, 4 the system refused (it needs root).")]
pub(crate) struct DemoArgs {
    /// Leave the machines and the enforcement in place, and print how to look around
    #[arg(long, conflicts_with = "down")]
    keep: bool,

    /// Remove what demos left: kept ones, and killed ones
    #[arg(long)]
    down: bool,

    /// A server and two hosts that follow it, and policy by the OpenStack API
    #[arg(long, conflicts_with_all = ["keep", "down"])]
    cluster: bool,

    #[command(flatten)]
    plane: PlaneArgs,
}

pub(crate) fn run(args: DemoArgs) -> Result<(), Failure> {
    match args.down {
        true => demo::take_down(),
        false => match args.plane.plane {
            PlaneName::Ebpf | PlaneName::Iptables if args.cluster => demo::run_cluster(args.plane),
            PlaneName::Ebpf | PlaneName::Iptables => demo::run(args.plane, args.keep),
            PlaneName::Ovs if args.cluster => Err(Failure::Usage(
                "--cluster is not for --plane ovs: its hosts have Linux bridges".to_owned(),
            )),
            PlaneName::Ovs if args.keep => Err(Failure::Usage(
                "--keep is not for --plane ovs: its switches end with the demo".to_owned(),
            )),
            PlaneName::Ovs => demo::run_ovs(),
        },
    }
}
