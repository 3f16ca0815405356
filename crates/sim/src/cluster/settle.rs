//! At rest: no faults, nothing under way; then each host is compared with what is committed now.
//!
//! Place on the line: after its end.

use super::servers::join;
use super::{End, Sim};
use crate::check::{self, Difference};
use crate::host::Host;
use model::HostId;

/// Whoever isn't settled then never will be.
const PATIENCE: u64 = 1_000;
/// Worlds of up to so many ports are compiled whole when all is quiet.
const SMALL: usize = 20_000;
/// Of the hosts without an agent.
const SAMPLE: usize = 50;

impl Sim<'_> {
    /// All faults are healed, and all that is under way arrives: then each host enforces what is committed.
    pub(super) fn settle(&mut self) -> Result<(), End> {
        let both = self.hosts.values_mut().chain(self.elders.values_mut());
        for host in both {
            host.down_until = 0;
            host.cut_until = 0;
            host.slow_until = 0;
        }
        for slot in &mut self.servers {
            slot.down_until = 0;
            if let Some(server) = &mut slot.server {
                server.behind_until = 0;
            }
        }
        let begun = self.step;
        while self.up().len() < self.servers.len()
            || self.hosts.values().any(|host| !self.is_settled(host))
            || self.elders.values().any(|elder| !elder.is_fenced)
        {
            if self.step - begun > PATIENCE {
                return Err(self.unsettled());
            }
            self.step(false)?;
        }
        self.elders.clear();
        self.compare_all()?;
        self.make_room();
        Ok(())
    }

    fn is_settled(&self, host: &Host) -> bool {
        host.is_connected()
            && host.inbox.is_empty()
            && !host.is_retrying()
            && host.applied() == Some(self.ledger.revision)
    }

    fn unsettled(&self) -> End {
        if let Some(elder) = self.elders.values().find(|elder| !elder.is_fenced) {
            let differs = Difference {
                port: None,
                what: "an agent that isn't fenced, although a later one follows for its host"
                    .to_owned(),
                expected: "it follows nobody".to_owned(),
                found: format!("connected {}", elder.is_connected()),
            };
            return self.violation(&elder.id, differs);
        }
        let mut hosts = self.hosts.values();
        let host = hosts.find(|host| !self.is_settled(host));
        let host = host.expect("there is one that isn't");
        let differs = Difference {
            port: None,
            what: "a host that doesn't settle, although all faults are healed".to_owned(),
            expected: self.ledger.revision.to_string(),
            found: format!(
                "{:?}, connected {}, {} messages wait",
                host.applied(),
                host.is_connected(),
                host.inbox.len()
            ),
        };
        self.violation(&host.id, differs)
    }

    fn compare_all(&mut self) -> Result<(), End> {
        let whole = (self.config.ports <= SMALL).then(|| self.ledger.whole());
        for (id, host) in &self.hosts {
            self.figures.quiet_checks += 1;
            let revision = self.ledger.revision;
            if let Some(differs) =
                check::enforced(&self.ledger, &mut None, id, revision, host.plane.view())
            {
                return Err(self.violation(id, differs));
            }
            if let (Some(whole), Some(view)) = (&whole, host.plane.view()) {
                self.figures.whole_checks += 1;
                let expected = policy::compile(whole, id).0;
                if let Some(differs) = check::difference(&expected, view) {
                    return Err(self.violation(id, differs));
                }
            }
            if let Some(port) = host.not_enforced().pop() {
                let differs = Difference {
                    port: Some(port),
                    what: "a port that isn't enforced, although its device is there".to_owned(),
                    expected: "enforced".to_owned(),
                    found: "not".to_owned(),
                };
                return Err(self.violation(id, differs));
            }
        }
        self.compare_sample()
    }

    /// Of hosts without an agent: what they would be told is what is committed.
    fn compare_sample(&mut self) -> Result<(), End> {
        let ids: Vec<HostId> = self.counted.keys().cloned().collect();
        for _ in 0..SAMPLE.min(ids.len()) {
            let id = self.dice.one_of(&ids).expect("there are some").clone();
            let (number, line) = &self.counted[&id];
            let server = self.servers[*number].server.as_mut().expect("it is up");
            let Some(part) = server.desk.part(line) else {
                continue;
            };
            self.figures.sampled += 1;
            let view = policy::compile(&part, &id).0;
            let revision = self.ledger.revision;
            if let Some(differs) =
                check::enforced(&self.ledger, &mut None, &id, revision, Some(&view))
            {
                return Err(self.violation(&id, differs));
            }
        }
        Ok(())
    }

    /// If agents have all the room, some of them go, so that other hosts have one.
    fn make_room(&mut self) {
        if self.agent_ports < self.config.most_agent_ports {
            return;
        }
        let ids: Vec<HostId> = self.hosts.keys().cloned().collect();
        let up = self.up();
        for id in ids {
            if self.dice.one_in(2) {
                continue;
            }
            let host = self.hosts.remove(&id).expect("it is one of them");
            self.agent_ports -= host.part_ports;
            if let Some((number, line)) = &host.line
                && let Some(server) = &mut self.servers[*number].server
            {
                server.desk.gone(line);
            }
            let number = *self.dice.one_of(&up).expect("all are up at rest");
            let server = self.servers[number].server.as_mut().expect("it is up");
            let line = join(server, &id, self.step);
            self.counted.insert(id, (number, line));
        }
    }
}
