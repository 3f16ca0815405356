//! What is simulated.

#[derive(Clone, Debug)]
pub struct Config {
    pub hosts: usize,
    /// On one store.
    pub servers: usize,
    pub ports: usize,
    pub changes: usize,
    pub seed: u64,
    pub faults: bool,
    /// Agents are made when a change first concerns their host, until their parts have so many ports in all. At rest,
    /// some go then, so that others come.
    pub most_agent_ports: usize,
    /// Something is wrong on purpose: to see that it is found.
    pub defect: Option<Defect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Agents leave out that something is gone.
    IgnoresRemovals,
    /// Agents are told a change again, after the one that came after it.
    AppliedTwice,
    /// The server tells of a port in a group that it isn't in.
    NeverCommitted,
    /// The server forgets to tell, now and then.
    Forgets,
    /// Servers don't hear which hosts follow the others.
    DeafServers,
    /// An agent that is fenced begins anew.
    IgnoresFence,
    /// Agents forget at each connection what they had.
    GoesBack,
}

/// Each server has a copy of all there is: of more ports than this there is one.
const PORTS_OF_TWO: usize = 200_000;

impl Config {
    pub fn new(hosts: usize, ports: usize, changes: usize, seed: u64) -> Self {
        Self {
            hosts,
            servers: match ports <= PORTS_OF_TWO {
                true => 2,
                false => 1,
            },
            ports,
            changes,
            seed,
            faults: true,
            most_agent_ports: 250_000,
            defect: None,
        }
    }
}
