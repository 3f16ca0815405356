//! The plane on bridges of a real switch, with whole VMs: what an exact frame at a single port doesn't show.
//! Needs root and Open vSwitch.

mod bed;
mod change;
mod faults;
mod hosts;
mod normal;
mod revocation;
mod size;
mod state;
mod stream;
mod tunnel_faults;
mod tunnel_revocation;
mod tunnels;
mod whole;
