use super::*;
use crate::render::tunnel::TunnelPort;
use conformance::generate;
use model::{HostId, Inventory};
use std::sync::Arc;

/// All of the view's ports, on a bridge that we drive whole.
fn board(view: &HostView) -> Switchboard {
    let ports = view.ports.iter().zip(1..).map(|((id, port), number)| {
        let attached = Attached {
            view: Arc::clone(port),
            of_port: number,
            number,
            vlan: None,
            held: false,
        };
        (id.clone(), attached)
    });
    Switchboard {
        forwarding: Forwarding::Whole,
        ports: ports.collect(),
        tunnel: view.overlay.as_ref().map(|_| TunnelPort {
            of_port: 100,
            option: 0,
        }),
        ..Switchboard::default()
    }
}

/// Of all policies in a row, and how often tables were the same in memory.
fn check(trace: generate::Trace, host: &HostId) -> usize {
    let policies = trace.events.into_iter().filter_map(|event| match event {
        generate::Event::Policy(inventory) => Some(inventory),
        generate::Event::Advance(_) | generate::Event::Packet(_) => None,
    });
    let mut known = Known::default();
    let mut last = FlowSet::default();
    let mut shared = 0;
    for inventory in policies {
        let inventory: &Inventory = &inventory;
        let (view, _) = policy::compile(inventory, host);
        let (board, names) = (board(&view), Names::of(&view));
        let again = render(&view, &board, &names, &mut known);
        let fresh = render(&view, &board, &names, &mut Known::default());
        let differences = again.differences(&fresh);
        assert!(differences.is_empty(), "{}: {differences:#?}", trace.seed);
        let rules = Table::Rules.number();
        shared += usize::from(std::ptr::eq(again.table(rules), last.table(rules)));
        last = again;
    }
    shared
}

#[test]
fn a_rendering_after_another_comes_to_what_a_first_one_comes_to() {
    let mut shared = 0;
    for seed in 0..20 {
        shared += check(generate::trace(seed, 500), &generate::host());
        for inspection in [Inspection::Destination, Inspection::Source] {
            let trace = generate::between(seed, 500, inspection);
            shared += check(trace, &generate::hosts()[0]);
        }
    }
    assert!(shared > 20, "{shared}");
}
