//! A port's flows, from this host's maps for another host, and from another host into them.
//!
//! Place on the line: conntrack, between two hosts. What leaves is free of numbers, ticks and secrets of
//! this host; what comes in gets those of this one, and is judged by the policy in force here. Each flow is
//! entered by the kernel (bpf/migration.h), so hooks may be at work on the port meanwhile.
//! Knows nothing of: how flows get from host to host, which policy the other one had.

use crate::contents::InForce;
use crate::flows;
use crate::judge;
use crate::layout::{Flow, PORT_RECORDS, PortRecord};
use crate::object::Object;
use dataplane::{Imported, LeftOut, MovedFlow, NO_TURN, PortFlows};
use model::FlowKey;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// Where a port is in the maps.
pub(crate) struct Place {
    pub(crate) slot: u32,
    pub(crate) in_force: InForce,
}

impl Place {
    fn number(&self) -> u32 {
        self.in_force.record.number
    }
}

/// Unexpired flows, and what is left of the hold.
pub(crate) fn export(object: &Object, place: &Place) -> io::Result<PortFlows> {
    let config = object.tables.config.get(&0)?.unwrap_or_default();
    let state = object
        .tables
        .port_state
        .get(&place.slot)?
        .unwrap_or_default();
    let number = place.number();
    let found = object
        .tables
        .flows
        .entries_where(|flow| flow.number == number)?;
    let now = judge::now_ticks(object)?;
    let places = config.half_open_per_port.max(1);
    let next = state.hand % places;
    let turn = |taken: u32| ((taken % places + places - next) % places) as u16;
    let alive = found.iter().map(|(_, flow)| flow);
    let alive = alive.filter(|flow| !flows::is_expired(flow, &config, now));
    let left = place.in_force.record.hold_until.wrapping_sub(now) as i32;
    let held = place.in_force.record.hold_until != 0 && left > 0;
    Ok(PortFlows {
        flows: alive
            .map(|flow| (flows::key(flow), flows::moved(flow, now, turn)))
            .collect(),
        hold: held.then(|| flows::ticks(left as u32)),
    })
}

/// Flows whose first packet nothing permits here come in dead. What is here stays as it is.
pub(crate) fn import(object: &Object, place: &Place, moved: &PortFlows) -> io::Result<Imported> {
    let mut entrance = Entrance::open(object, place)?;
    let mut imported = Imported::default();
    for (key, flow) in moved.in_turn(entrance.places as usize) {
        imported.note(entrance.enter(key, &flow)?);
    }
    Ok(imported)
}

/// Puts a record in force under which the port is held for at least so long. `None`: it is already.
pub(crate) fn hold(object: &Object, place: &Place, hold: Duration) -> io::Result<Option<InForce>> {
    let InForce { index, record } = place.in_force;
    let now = judge::now_ticks(object)?;
    // 0 says that there is no hold.
    let until = now.wrapping_add(flows::whole_ticks(hold)).max(1);
    if record.hold_until != 0 && until.wrapping_sub(record.hold_until) as i32 <= 0 {
        return Ok(None);
    }
    let held = InForce {
        index: (index + 1) % PORT_RECORDS,
        record: PortRecord {
            hold_until: until,
            ..record
        },
    };
    // To a place that no packet reads; then one write puts it in force.
    let at = place.slot * PORT_RECORDS + held.index;
    object.tables.ports.put(&at, &held.record)?;
    object.tables.port_index.put(&place.slot, &held.index)?;
    Ok(Some(held))
}

/// Flows of one port come in, half-open ones by turn.
struct Entrance<'a> {
    program: BorrowedFd<'a>,
    slot: u16,
    number: u32,
    now_ticks: u32,
    /// For half-open flows; the one whose turn is next; and how many from that on were tried.
    places: u32,
    next: u32,
    passed: u32,
}

impl<'a> Entrance<'a> {
    fn open(object: &'a Object, place: &Place) -> io::Result<Self> {
        let looks = || io::Error::other("this process only looks; it takes in no flows");
        let program = object.adopt.as_ref().ok_or_else(looks)?;
        let config = object.tables.config.get(&0)?.unwrap_or_default();
        let state = object
            .tables
            .port_state
            .get(&place.slot)?
            .unwrap_or_default();
        Ok(Self {
            program: program.as_fd(),
            slot: u16::try_from(place.slot).expect("flows name slots in 16 bits"),
            number: place.number(),
            now_ticks: judge::now_ticks(object)?,
            places: config.half_open_per_port,
            next: state.hand,
            passed: 0,
        })
    }

    fn enter(&mut self, key: &FlowKey, moved: &MovedFlow) -> io::Result<Result<(), LeftOut>> {
        let mut flow = flows::arrived(key, moved, self.slot, self.number, self.now_ticks);
        let Some(turn) = moved.turn else {
            return self.ask(&flow).map(|answer| match answer {
                Answer::Entered => Ok(()),
                Answer::LeftOut(why) => Err(why),
                Answer::PlaceTaken => Err(LeftOut::Budget),
            });
        };
        if turn == NO_TURN {
            return Ok(Err(LeftOut::Budget));
        }
        // They come by turn.
        self.passed = self.passed.max(turn.into());
        while self.passed < self.places {
            flow.place = self.next.wrapping_add(self.passed) % self.places + 1;
            match self.ask(&flow)? {
                Answer::Entered => {
                    self.passed += 1;
                    return Ok(Ok(()));
                }
                Answer::LeftOut(why) => return Ok(Err(why)),
                Answer::PlaceTaken => self.passed += 1,
            }
        }
        Ok(Err(LeftOut::Budget))
    }

    fn ask(&self, flow: &Flow) -> io::Result<Answer> {
        Ok(match judge::adopt(self.program.as_raw_fd(), flow)? {
            ADOPTED => Answer::Entered,
            ADOPT_EXPIRED => Answer::LeftOut(LeftOut::Expired),
            ADOPT_NOT_THE_PORTS => Answer::LeftOut(LeftOut::NotThePorts),
            ADOPT_ELIDABLE => Answer::LeftOut(LeftOut::Elidable),
            ADOPT_KNOWN => Answer::LeftOut(LeftOut::Known),
            ADOPT_BUDGET => Answer::LeftOut(LeftOut::Budget),
            ADOPT_PLACE_TAKEN => Answer::PlaceTaken,
            // The port's slot is somebody else's, or nobody's.
            _ => return Err(io::Error::other("the kernel doesn't know the port")),
        })
    }
}

/// bpf/migration.h.
const ADOPTED: u32 = 0;
const ADOPT_EXPIRED: u32 = 2;
const ADOPT_NOT_THE_PORTS: u32 = 3;
const ADOPT_ELIDABLE: u32 = 4;
const ADOPT_KNOWN: u32 = 5;
const ADOPT_BUDGET: u32 = 6;
const ADOPT_PLACE_TAKEN: u32 = 7;

enum Answer {
    Entered,
    LeftOut(LeftOut),
    PlaceTaken,
}

#[cfg(test)]
mod tests;
