//! What the switch's database says. It is read again when somebody has changed it.

use super::OvsPlane;
use ovsdb::zones::Zones;
use ovsdb::{Bridge, Watch};
use std::collections::BTreeMap;
use std::io;

pub(super) struct Facts {
    watch: Watch,
    bridges: Vec<Bridge>,
    /// Of the datapaths that were asked about.
    zones: BTreeMap<String, Zones>,
}

impl OvsPlane {
    pub(super) fn bridges(&mut self) -> io::Result<Vec<Bridge>> {
        Ok(self.facts()?.bridges.clone())
    }

    pub(super) fn zones(&mut self, datapath: &str) -> io::Result<Zones> {
        if let Some(zones) = self.facts()?.zones.get(datapath) {
            return Ok(zones.clone());
        }
        let zones = self.database()?.zones(datapath).map_err(io::Error::other)?;
        // Whatever has changed since the facts were looked at will be told.
        if let Some(facts) = &mut self.facts {
            facts.zones.insert(datapath.to_owned(), zones.clone());
        }
        Ok(zones)
    }

    /// As they are now.
    fn facts(&mut self) -> io::Result<&mut Facts> {
        let watch = match self.facts.take() {
            Some(mut facts) => match facts.watch.changed() {
                Ok(false) => return Ok(self.facts.insert(facts)),
                Ok(true) => Some(facts.watch),
                Err(_) => None,
            },
            None => None,
        };
        let watch = match watch {
            Some(watch) => watch,
            None => self.connect_database(Watch::connect)?,
        };
        let bridges = self.read_bridges()?;
        Ok(self.facts.insert(Facts {
            watch,
            bridges,
            zones: BTreeMap::new(),
        }))
    }

    /// Over a connection that may have been lost since it was used.
    fn read_bridges(&mut self) -> io::Result<Vec<Bridge>> {
        if let Some(database) = &mut self.database
            && let Ok(bridges) = database.bridges()
        {
            return Ok(bridges);
        }
        self.database = None;
        let bridges = self.database()?.bridges();
        bridges.map_err(|error| {
            self.database = None;
            io::Error::other(error)
        })
    }
}
