//! A test for each scenario of `scenarios/`, for one subject.

use libtest_mimic::{Arguments, Failed, Trial};
use portcullis_conformance::scenario::{Ran, Scenario, Subject, load, run};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the thread that owns the subject is asked: a scenario, and where to answer.
type Question = (Scenario, Sender<Result<Ran, Failed>>);

/// Asks the subject all questions there are.
pub(crate) type Ask = Box<dyn FnOnce(&mut dyn Subject) + Send>;

/// Runs those that are wanted, as arguments of the test program say; whether all went well. `with` calls
/// its argument with a subject, on a thread of its own: subjects need not be able to move. There is one for
/// each processor, and a scenario is for the one that comes first.
pub(crate) fn check_scenarios(
    wanted: fn(&Scenario) -> bool,
    with: impl Fn(Ask) + Send + Clone + 'static,
) -> bool {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let mut scenarios = match load(&directory) {
        Ok(scenarios) => scenarios,
        Err(bad) => {
            eprintln!("{bad}");
            return false;
        }
    };
    scenarios.retain(wanted);
    let (ask, questions) = channel::<Question>();
    let questions = Arc::new(Mutex::new(questions));
    let judges: Vec<_> = (0..thread::available_parallelism().map_or(1, usize::from))
        .map(|_| {
            let (with, questions) = (with.clone(), questions.clone());
            thread::spawn(move || with(Box::new(move |subject| answer(&questions, subject))))
        })
        .collect();
    drop(questions);
    let total: Arc<Mutex<Ran>> = Arc::default();
    let trials = scenarios.into_iter().map(|scenario| {
        let (ask, total) = (ask.clone(), total.clone());
        let name = format!(
            "{}: {}",
            scenario.file.trim_end_matches(".yaml"),
            scenario.name
        );
        Trial::test(name, move || {
            let (answer, answered) = channel();
            ask.send((scenario, answer))
                .map_err(|_| "the subject has stopped: see the panic above")?;
            let ran = answered
                .recv()
                .map_err(|_| "the subject has stopped: see the panic above")??;
            let mut total = total.lock().expect("nothing here panics");
            total.packets += ran.packets;
            for (why, count) in ran.unshown {
                *total.unshown.entry(why).or_default() += count;
            }
            Ok(())
        })
    });
    let trials: Vec<Trial> = trials.collect();
    drop(ask);
    let done = libtest_mimic::run(&Arguments::from_args(), trials);
    // The last question is answered, or never will be.
    let total = total.lock().expect("nothing here panics");
    for (why, count) in &total.unshown {
        println!("{count} of {} packets not shown: {why}", total.packets);
    }
    let panicked = judges
        .into_iter()
        .filter_map(|judge| judge.join().err())
        .count();
    !done.has_failed() && panicked == 0
}

/// Until nobody asks any more.
fn answer(questions: &Mutex<Receiver<Question>>, subject: &mut dyn Subject) {
    let next = || questions.lock().expect("receiving doesn't panic").recv();
    while let Ok((scenario, answer)) = next() {
        let result = run(&scenario, subject).map_err(|failure| Failed::from(*failure));
        answer.send(result).expect("who asked waits for the answer");
    }
}

pub(crate) fn every(_: &Scenario) -> bool {
    true
}

pub(crate) fn exit(well: bool) -> ExitCode {
    match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
