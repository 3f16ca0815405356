//! What a change costs the servers, counted: by the hosts that it concerns, however many ports there are.

use sim::{Config, Figures, Row, run};
use std::ops::ControlFlow;

fn figures(hosts: usize, ports: usize) -> Figures {
    let config = Config {
        faults: false,
        most_agent_ports: 1,
        ..Config::new(hosts, ports, 1_000, 1)
    };
    let outcome = run(&config, &mut |_| ControlFlow::Continue(()));
    assert_eq!(outcome.violation, None);
    outcome.figures
}

/// The large one is drawn otherwise, so equal numbers are not to be expected; ten times as much would be by its size.
fn is_as_much(small: u64, large: u64) -> bool {
    2 * large <= 3 * small
}

fn objects_a_change(row: &Row) -> u64 {
    row.objects.sum() / row.objects.count() as u64
}

fn is_constant(small: &Row, large: &Row) -> bool {
    let a_host = small.objects_a_host().zip(large.objects_a_host());
    is_as_much(objects_a_change(small), objects_a_change(large))
        || a_host.is_some_and(|(small, large)| is_as_much(small, large))
}

#[test]
fn a_change_costs_no_more_where_there_are_ten_times_as_many_ports() {
    let (small, large) = (figures(100, 2_000), figures(1_000, 20_000));
    assert!(large.largest >= 9 * small.largest, "{}", large.largest);
    let grown = small.rows.iter().filter_map(|(class, small)| {
        let large = &large.rows[class];
        let said = |row: &Row| (objects_a_change(row), row.objects_a_host());
        (!is_constant(small, large)).then(|| (class, said(small), said(large)))
    });
    let grown: Vec<_> = grown.collect();
    assert!(grown.is_empty(), "of a change, and of a host: {grown:?}");
    assert_eq!(small.rows.len(), 10);
}
