//! Of what differs alone as much is rendered as it takes: the result is that of rendering all.

use super::*;
use crate::books::Books;
use crate::render;
use conformance::generate::{self, Event};
use dataplane::{Bridge, Device, Target};
use model::{Inventory, MacAddr};

/// All that the kernel is to hold.
#[derive(Debug, PartialEq, Eq)]
struct State {
    elements: BTreeSet<Element>,
    sets: BTreeMap<String, BTreeMap<ipset::Element, Said>>,
    chains: BTreeMap<ChainName, Chain>,
}

impl State {
    fn of(inputs: &Inputs) -> Self {
        let whole = change(&Inputs::default(), inputs);
        let sets = whole.sets_come.into_iter();
        let chains = whole.chains_come.into_iter();
        Self {
            elements: whole.elements_come,
            sets: sets.map(|(name, set)| (name, set.elements())).collect(),
            chains: chains.map(|(name, (chain, _))| (name, chain)).collect(),
        }
    }

    /// Nothing goes that isn't there, or comes that is.
    fn make(&mut self, change: Change) {
        for element in &change.elements_gone {
            assert!(self.elements.remove(element), "{element:?} isn't there");
        }
        for element in change.elements_come {
            let told = format!("{element:?} is there");
            assert!(self.elements.insert(element), "{told}");
        }
        for changes in [change.members, change.marks] {
            self.make_in_sets(changes);
        }
        for name in &change.sets_gone {
            assert!(self.sets.remove(name).is_some(), "{name} isn't there");
        }
        for (name, set) in change.sets_come {
            let there = self.sets.insert(name, set.elements());
            assert_eq!(there, None);
        }
        for (name, chain) in change.chains_gone {
            assert_eq!(self.chains.remove(&name), Some(chain));
        }
        for (name, (chain, old)) in change.chains_come {
            assert_eq!(self.chains.insert(name, chain), old);
        }
    }

    fn make_in_sets(&mut self, changes: SetChanges) {
        for (name, gone) in changes.gone {
            let set = self.sets.get_mut(&name).expect("it is there");
            for element in gone {
                assert!(set.remove(&element).is_some(), "{element} isn't there");
            }
        }
        for (name, come) in changes.come {
            let set = self.sets.get_mut(&name).expect("it is there");
            for (element, said) in come {
                let before = set.insert(element, said.clone());
                assert_ne!(before, Some(said));
            }
        }
    }
}

/// The ports are on two bridges, some on another one each time, some on none.
fn target(inventory: &Inventory, step: usize) -> Target {
    let (view, _) = policy::compile(inventory, &generate::host());
    let device = |name: &str, ifindex| Device {
        name: name.to_owned(),
        ifindex,
    };
    let mut target = Target::default();
    for (i, (id, port)) in view.ports.iter().enumerate() {
        let bytes = port.mac.0.iter();
        let ifindex = bytes.fold(0, |sum: u32, byte| sum.wrapping_mul(257) + u32::from(*byte));
        let tap = device(id.as_str(), ifindex);
        let bridge = ["br0", "br1", ""][(i + step / 2) % 3];
        if !bridge.is_empty() {
            let key = device(bridge, 10 + u32::from(bridge == "br1"));
            let on = target.bridges.entry(key).or_insert_with(Bridge::default);
            on.members.insert(tap.clone());
            on.macs.insert(MacAddr([0xfe, 0, 0, 0, 0, ifindex as u8]));
        }
        target.devices.insert(id.clone(), tap);
    }
    Target { view, ..target }
}

#[test]
fn rendering_what_differs_gives_what_rendering_all_gives() {
    let events = (0..60).flat_map(|seed| generate::trace(seed, 300).events);
    let policies = events.filter_map(|event| match event {
        Event::Policy(inventory) => Some(inventory),
        Event::Advance(_) | Event::Packet(_) => None,
    });
    let mut books = Books::default();
    let mut before = Inputs::default();
    let mut state = State::of(&before);
    let mut changes = 0;
    for (step, inventory) in policies.enumerate() {
        let after = render::inputs(&target(&inventory, step), &mut books);
        state.make(change(&before, &after));
        assert_eq!(state, State::of(&after), "step {step}");
        before = after;
        changes += 1;
    }
    assert!(changes > 100);
}
