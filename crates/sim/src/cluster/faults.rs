//! What happens to servers and hosts. (To messages: where they are sent.)

use super::{Sim, now};
use model::HostId;

/// Others see a server for so long that has crashed.
const GHOST: u64 = 100;

impl Sim<'_> {
    pub(super) fn server_faults(&mut self) {
        let many = match self.config.ports > 200_000 {
            true => 500,
            false => 120,
        };
        if self.dice.one_in(40)
            && let Some(number) = self.dice.one_of(&self.up())
            && let Some(server) = &mut self.servers[*number].server
        {
            server.behind_until = self.step + self.dice.between(5, 40);
            self.fault("server behind");
        }
        if self.dice.one_in(many)
            && let Some(number) = self.dice.one_of(&self.up())
        {
            self.crash_server(*number);
        }
    }

    fn crash_server(&mut self, number: usize) {
        let takeover = self.dice.one_in(2);
        self.fault(match (self.up().len() > 1, takeover) {
            (true, _) => "server crashed, its hosts went to another",
            (false, true) => "server crashed, another took over",
            (false, false) => "server crashed and restarted",
        });
        let down = match takeover {
            true => 1,
            false => self.dice.between(5, 20),
        };
        let slot = &mut self.servers[number];
        slot.down_until = self.step + down;
        let crashed = slot.server.take().expect("it is up");
        self.ghosts.push((self.step + GHOST, crashed.crash()));
        self.counted.retain(|_, (follows, _)| *follows != number);
        let both = self.hosts.values_mut().chain(self.elders.values_mut());
        for host in both.filter(|host| host.follows() == Some(number)) {
            host.connect_at = self.step + self.dice.between(1, 3);
            host.disconnected(&mut now(self.step, &mut self.dice, self.config, false));
            self.dirty.insert(host.id.clone());
        }
    }

    pub(super) fn host_faults(&mut self) {
        let ids: Vec<HostId> = self.hosts.keys().cloned().collect();
        let Some(id) = self.dice.one_of(&ids).cloned() else {
            return;
        };
        let kind = match self.dice.below(100) {
            0..4 => "agent crashed",
            4..6 => "host rebooted",
            6..10 => "host cut off",
            10..14 => "host slow",
            14..20 => "host to another server",
            20..22 => "two agents of one host",
            _ => return,
        };
        let until = self.step + self.dice.between(5, 60);
        let tells = self.dice.one_in(2);
        let host = self.hosts.get_mut(&id).expect("it is one of them");
        if host.down_until.max(host.cut_until) > self.step {
            return;
        }
        if kind == "two agents of one host" {
            return self.add_twin(&id);
        }
        let line = host.line.take();
        match kind {
            "agent crashed" => {
                host.crash();
                host.down_until = self.step + 1 + until % 5;
            }
            "host rebooted" => {
                host.reboot();
                host.claimed = None;
                host.down_until = until;
            }
            "host cut off" => {
                host.disconnected(&mut now(self.step, &mut self.dice, self.config, false));
                host.cut_until = until;
            }
            "host to another server" => {
                host.disconnected(&mut now(self.step, &mut self.dice, self.config, false));
                host.leaves = line.as_ref().map(|(number, _)| *number);
            }
            _ => {
                host.slow_until = until;
                host.line = line;
                self.fault(kind);
                return;
            }
        }
        host.connect_at = self.step + 1;
        self.dirty.insert(id);
        // Else the server learns it when the agent is there again.
        if let (Some((number, line)), true) = (line, tells)
            && let Some(server) = &mut self.servers[number].server
        {
            server.desk.gone(&line);
        }
        self.fault(kind);
    }

    /// Another agent begins that has the same name. The one that is there learns it by and by.
    fn add_twin(&mut self, id: &HostId) {
        let host = self.hosts.get_mut(id).expect("it is one of them");
        if self.elders.contains_key(id) || !host.is_connected() {
            return;
        }
        host.slow_until = 0;
        let mut twin = host.twin();
        twin.start(&mut now(self.step, &mut self.dice, self.config, false));
        let elder = std::mem::replace(host, twin);
        self.elders.insert(id.clone(), elder);
        self.fault("two agents of one host");
    }
}
