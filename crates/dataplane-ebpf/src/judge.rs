//! Asks the loaded program about one packet, by BPF_PROG_RUN.
//!
//! The program's other entry point `judge` is told port and direction in the packet's control block,
//! and answers there.

use crate::layout::{
    Answer, Flow, PASS_ELIDED_ERROR, PASS_FRAGMENT, PASS_INFRASTRUCTURE, PASS_LIVE, PASS_RULE,
    PASS_UNGUARDED, SWEEP_NOTHING, Shared, SweepArgs, WORD_RANK,
};
use crate::object::Object;
use crate::table::check;
use dataplane::Outcome;
use model::{DropReason, GroupId, PassReason, RuleId, RuleRef, Verdict};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

const NOTE_FLOW: u32 = 1;
const NOTE_LIVE: u32 = 2;
const NOTE_ELIDABLE: u32 = 4;

/// `struct __sk_buff`: 192 bytes; `ifindex` at 40, `cb` at 48.
const CONTEXT: usize = 192;
const IFINDEX: usize = 40;
const CONTROL_BLOCK: usize = 48;
/// BPF_PROG_RUN wants an Ethernet header.
const SHORTEST: usize = 14;
/// Kernels that want an IP header behind it, too, get one of no version.
const SHORTEST_IP: usize = SHORTEST + 40;

pub(crate) fn run(
    object: &Object,
    slot: u32,
    direction: u32,
    dry: bool,
    frame: &[u8],
) -> io::Result<Answer> {
    let mut context = [0u8; CONTEXT];
    for (place, value) in [slot, direction, u32::from(dry)].into_iter().enumerate() {
        let at = CONTROL_BLOCK + place * 4;
        context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let padded = padded(frame);
    run_program(
        object.judge.as_raw_fd(),
        &mut context,
        padded.as_deref().unwrap_or(frame),
        1,
    )?;
    let answer = &context[CONTROL_BLOCK..][..size_of::<Answer>()];
    let mut answer = Answer::from_bytes(answer).expect("cut to its size");
    let before_parse = [PASS_UNGUARDED, u32::from(DropReason::NotReady.number())];
    if frame.len() < SHORTEST && !before_parse.contains(&answer.outcome) {
        answer.outcome = DropReason::BadHeader.number().into();
    }
    Ok(answer)
}

/// As `judge`, the program `sweep` is told in the control block, and answers there.
pub(crate) fn ask_sweep(object: &Object, mode: u32, number: u32) -> io::Result<SweepArgs> {
    let mut context = [0u8; CONTEXT];
    let arguments = SweepArgs {
        mode,
        number,
        ..SweepArgs::default()
    };
    let block = CONTROL_BLOCK..CONTROL_BLOCK + size_of::<SweepArgs>();
    context[block.clone()].copy_from_slice(arguments.as_bytes());
    run_program(object.sweep.as_raw_fd(), &mut context, &[0; SHORTEST], 1)?;
    Ok(SweepArgs::from_bytes(&context[block]).expect("cut to its size"))
}

/// What time the hooks think it is, in the ticks of flows.
pub(crate) fn now_ticks(object: &Object) -> io::Result<u32> {
    Ok(ask_sweep(object, SWEEP_NOTHING, 0)?.now_ticks)
}

/// The program `adopt` finds a flow behind an Ethernet header.
pub(crate) fn adopt(program: i32, flow: &Flow) -> io::Result<u32> {
    let mut context = [0u8; CONTEXT];
    let frame = [&[0; SHORTEST], flow.as_bytes()].concat();
    run_program(program, &mut context, &frame, 1)?;
    let answer = u32::from_bytes(&context[CONTROL_BLOCK..][..4]);
    Ok(answer.expect("cut to its size"))
}

/// A frame without room for the header that its ethertype announces can't be given to the kernel's
/// test run. In its place: one whose IP header is as unreadable, but there.
fn padded(frame: &[u8]) -> Option<Vec<u8>> {
    let needed = match frame.get(12..SHORTEST) {
        None => SHORTEST,
        Some([0x08, 0x00]) if frame.len() < SHORTEST + 20 => SHORTEST_IP,
        Some([0x86, 0xdd]) if frame.len() < SHORTEST_IP => SHORTEST_IP,
        Some(_) => return None,
    };
    let mut padded = frame.to_vec();
    padded.truncate(SHORTEST);
    padded.resize(needed, 0);
    Some(padded)
}

/// How long a hook takes for a packet of a device, on average.
pub(crate) fn time(program: i32, ifindex: u32, frame: &[u8], repeat: u32) -> io::Result<Duration> {
    let mut context = [0u8; CONTEXT];
    context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    let nanoseconds = run_program(program, &mut context, frame, repeat)?;
    Ok(Duration::from_nanos(nanoseconds.into()))
}

fn run_program(
    program: i32,
    context: &mut [u8; CONTEXT],
    frame: &[u8],
    repeat: u32,
) -> io::Result<u32> {
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as u64,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        ctx_in: context.as_ptr().cast(),
        ctx_size_in: CONTEXT as u32,
        ctx_out: context.as_mut_ptr().cast(),
        ctx_size_out: CONTEXT as u32,
        repeat: repeat as i32,
        ..Default::default()
    };
    // SAFETY: frame and context are as long as said; the context is read before it is written.
    check(unsafe { libbpf_sys::bpf_prog_test_run_opts(program, &mut options) })?;
    Ok(options.duration)
}

/// `rule` finds the rule behind a word of a set.
pub(crate) fn verdict(answer: &Answer, rule: impl Fn(u32, u32) -> RuleRef) -> Verdict {
    let rule = || rule(answer.set, answer.word);
    let reason = match answer.outcome {
        PASS_RULE => PassReason::Rule(rule()),
        PASS_LIVE => PassReason::Live(rule()),
        PASS_ELIDED_ERROR => PassReason::ElidedError,
        PASS_FRAGMENT => PassReason::Fragment,
        PASS_INFRASTRUCTURE => PassReason::Infrastructure,
        PASS_UNGUARDED => PassReason::Unguarded,
        number => {
            let reason = u8::try_from(number).ok().and_then(DropReason::from_number);
            // A number of neither kind can only come from a program that isn't ours: closed.
            return Verdict::Drop(reason.unwrap_or(DropReason::NotReady));
        }
    };
    Verdict::Pass(reason)
}

pub(crate) fn outcome(answer: &Answer, rule: impl Fn(u32, u32) -> RuleRef) -> Outcome {
    Outcome {
        verdict: verdict(answer, rule),
        flow_found: answer.notes & NOTE_FLOW != 0,
        live: answer.notes & NOTE_LIVE != 0,
        elidable: answer.notes & NOTE_ELIDABLE != 0,
    }
}

/// For a rule of a set that is not known by its rules: loaded by another process, say.
pub(crate) fn nameless(set: u32, word: u32) -> RuleRef {
    RuleRef {
        group: GroupId::new(format!("(set {set})")),
        rule: RuleId::new(format!("(rule {})", word & WORD_RANK)),
    }
}
