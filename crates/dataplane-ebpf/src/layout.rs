//! What the kernel side and user space share: one definition of each struct and number.
//!
//! `shared!` makes a `repr(C)` struct without padding and its C text; the build script writes the C
//! header from [`header`], with a size check per struct, so neither side can drift from the other.
//!
//! ```text
//! device -> port_index -> port -> set --+-> policy (set, peer, protocol) -> ranges -> rule word
//!                           |           |
//!                           |           +-- peers of the remote address: exact, prefixes
//!                           +-> own, macs, reserved, net_addresses, subnets   (guard)
//!                           +-> port_state, half_open, flows, fragments       (conntrack)
//! ```
//! Addresses are 16 bytes in wire order; IPv4 uses the first 4 and leaves the rest 0. Everything
//! else is in host order unless its name ends in `_be`.

/// Views a shared struct as bytes and back.
///
/// # Safety
/// Only for `repr(C)` structs without padding in which every bit pattern is valid: `shared!` checks.
pub unsafe trait Shared: Copy + Default {
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: no padding, so every byte is initialized.
        unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), std::mem::size_of::<Self>())
        }
    }

    /// `None` when the length is another.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        // SAFETY: the length fits, every bit pattern is valid, and the read is unaligned.
        (bytes.len() == std::mem::size_of::<Self>())
            .then(|| unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
    }
}

macro_rules! shared {
    ($($(#[$doc:meta])* $name:ident as $c:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)+ })+) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name { $($(#[$fdoc])* pub $field: $type,)+ }
            const _: () = assert!(
                0 $(+ std::mem::size_of::<$type>())+ == std::mem::size_of::<$name>(),
                "padding: add fields to fill it"
            );
            // SAFETY: repr(C), integers only, and the assertion above excludes padding.
            unsafe impl Shared for $name {}
        )+
        /// (C name, size, fields as (name, Rust type)).
        #[allow(dead_code)]
        const STRUCTS: &[(&str, usize, &[(&str, &str)])] = &[
            $((stringify!($c), std::mem::size_of::<$name>(), &[$((stringify!($field), stringify!($type)),)+]),)+
        ];
    };
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)+) => {
        $($(#[$doc])* pub const $name: u32 = $value;)+
        #[allow(dead_code)]
        const NUMBERS: &[(&str, u32)] = &[$((stringify!($name), $name),)+];
    };
}

numbers! {
    /// Changes with anything in this file; pins of another version are not adopted.
    LAYOUT_VERSION = 2;

    DIR_INGRESS = 0;
    DIR_EGRESS = 1;
    FAM_V4 = 0;
    FAM_V6 = 1;

    /// Records per port slot; the index says which one is in force, so that a record is replaced by
    /// one write, and no reader meets one that is being rewritten.
    PORT_RECORDS = 4;
    /// A device that is ours and has no port.
    SLOT_CLOSED = 0xffff_ffff;

    PORT_SECURITY = 1;
    PORT_DHCP_SERVER = 2;
    PORT_ROUTER = 4;
    PORT_EUI64_ONLY = 8;
    /// `own` holds more than `v4` and `v6` of the record.
    PORT_MORE_ADDRESSES = 16;
    /// `macs` holds more than `mac` of the record.
    PORT_MORE_MACS = 32;
    /// `net_addresses` holds more subnet broadcast addresses than `broadcast` of the record.
    PORT_MORE_BROADCASTS = 64;
    /// A listed DHCP server for IPv4, for IPv6.
    PORT_DHCP4_LISTED = 128;
    PORT_DHCP6_LISTED = 256;

    /// Which MAC of the port a source address may come with: `own` keys. 0 serves destinations.
    MAC_DESTINATION = 0;
    MAC_OWN = 1;
    /// The first number for MACs of pairs.
    MAC_MORE = 2;

    NET_BROADCAST = 1;
    NET_DHCP_SERVER = 2;

    /// Peer 0 is anybody.
    PEER_ANY = 0;
    PEERS_PER_ADDRESS = 4;
    PROTOCOL_ANY = 256;

    /// What a rule word says: bits 0 to 29 the rule's rank in its set plus 1; bit 31, that a rule of
    /// a stateful group is among those that permit. 0: nothing permits.
    WORD_RANK = 0x3fff_ffff;
    WORD_STATEFUL = 0x8000_0000;

    /// The set has rules for the peer kind, by protocol, or for any protocol.
    SET_ANY = 1;
    SET_EXACT = 2;
    SET_EXACT_ANY_PROTOCOL = 4;
    SET_PREFIX = 8;
    SET_PREFIX_ANY_PROTOCOL = 16;
    /// `all` has the least rank of the set in this direction and family and is stateful, or no rule is.
    SET_ALL_IS_LEAST = 32;
    /// Ingress: some flow may be elidable (both directions have rules of this family).
    SET_MAY_ELIDE = 64;

    /// ICMP error types as bits: IPv4 3, 11, 12; IPv6 1 to 4.
    ERRORS_V4 = 0x7;
    ERRORS_V6 = 0xf;

    ELISION_OFF = 0;
    ELISION_STRICT = 1;
    ELISION_ON = 2;

    TCP_OPENING = 0;
    TCP_ESTABLISHED = 1;
    TCP_CLOSING = 2;
    TCP_RESET = 3;

    TIMEOUT_TCP_OPENING = 0;
    TIMEOUT_TCP_ESTABLISHED = 1;
    TIMEOUT_TCP_CLOSING = 2;
    TIMEOUT_TCP_RESET = 3;
    TIMEOUT_UDP = 4;
    TIMEOUT_UDP_REPLIED = 5;
    TIMEOUT_ICMP = 6;
    TIMEOUT_OTHER = 7;
    TIMEOUTS = 8;

    /// Time in flows is in ticks of 2^28 ns (0.27 s).
    TICK_SHIFT = 28;

    FLOW_V6 = 1;
    /// The flow's first packet was sent by the port.
    FLOW_EGRESS = 2;
    /// ICMP: the local end asked.
    FLOW_ASKED_BY_LOCAL = 4;

    FLOW_FIN_LOCAL = 1;
    FLOW_FIN_REMOTE = 2;
    FLOW_REPLIED = 4;

    HALF_OPEN_PLACES = 4096;
    PATHS = 4096;
    FRAGMENT_PLACES = 64;

    PASS_RULE = 0x100;
    PASS_LIVE = 0x200;
    PASS_ELIDED_ERROR = 0x300;
    PASS_FRAGMENT = 0x400;
    PASS_INFRASTRUCTURE = 0x500;
    PASS_UNGUARDED = 0x600;

    STATS_PER_PORT = 32;
    STAT_PASSED_INGRESS = 30;
    STAT_PASSED_EGRESS = 31;

    EVENT_BYTES = 128;
    ETHERTYPES = 8;

    SWEEP_EXPIRED = 0;
    /// Also flows that are elidable now.
    SWEEP_ELIDABLE = 1;
    /// Only says what time it is.
    SWEEP_NOTHING = 2;
}

shared! {
    /// The one entry of `config`.
    Config as config {
        /// Not 0: the clock stands at this time (tests).
        fixed_clock_ns: u64,
        /// Added to the clock (tests of timeouts).
        clock_offset_ns: u64,
        /// Secret of the flow hash; guests can't aim for collisions.
        hash_key: [u64; 2],
        /// On a packet that the sender's hook has judged for the receiver, too. Secret.
        judged_mark: u64,
        /// Changes with every change of policy: flows judged under another one are judged anew.
        generation: u32,
        elision: u32,
        timeouts_ticks: [u32; 8],
        flows_per_port: u32,
        half_open_per_port: u32,
        /// The host's cap less all ports' reserves: beyond it a port gets flows only up to its reserve.
        shared_flows: u32,
        reserve_per_port: u32,
        elided_errors_per_s: u32,
        ethertypes: [u16; 8],
        ethertypes_len: u32,
        /// Length of the kernel's tick. Time in flows counts jiffies, which cost nothing to read; clocks do.
        jiffy_ns: u32,
        /// Not 0: between ports of this host packets go straight from hook to hook.
        direct: u32,
    }
    /// `devices`, by the low 16 bits of the ifindex; `devices_more`, by ifindex, where two collide.
    DeviceEntry as device {
        ifindex: u32,
        slot: u32,
    }
    /// `ports`: what the hooks need of a port, in the four records of its slot.
    PortRecord as port {
        /// Unlike the slot never used again, so that flows and addresses of a former port mean nothing.
        /// 0: no port.
        number: u32,
        set: u32,
        scope: u32,
        network: u32,
        /// `PORT_*`.
        flags: u32,
        /// Key of `own` and `macs`: new for each change of the addresses.
        addresses: u32,
        /// Ticks until which TCP flows start by SYN only (0: no hold).
        hold_until: u32,
        mac: [u8; 6],
        pad: u16,
        /// A fixed IPv4 address, a fixed IPv6 address, the broadcast address of an IPv4 subnet; or 0.
        v4: [u8; 4],
        broadcast: [u8; 4],
        aligned: u32,
        v6: [u8; 16],
        /// fe80:: address derived from the MAC.
        link_local: [u8; 16],
    }
    /// Key of `own` (longest prefix match): may the port use this address with this MAC?
    OwnKey as own_key {
        /// 64 + the address bits that count.
        prefix_len: u32,
        addresses: u32,
        mac: u16,
        family: u16,
        address: [u8; 16],
    }
    /// Key of `macs`; the value is the MAC's number in `own` keys.
    MacKey as mac_key {
        addresses: u32,
        mac: [u8; 6],
        pad: u16,
    }
    /// Key of `reserved`: link-local addresses that ports of a network can't take.
    ReservedKey as reserved_key {
        network: u32,
        address: [u8; 16],
    }
    /// Key of `net_addresses`: broadcast addresses and DHCP servers of a network.
    NetAddressKey as net_address_key {
        network: u32,
        kind: u16,
        family: u16,
        address: [u8; 16],
    }
    /// Key of `subnets` (longest prefix match): is the address in one of the network's subnets?
    SubnetKey as subnet_key {
        /// 64 + the address bits that count.
        prefix_len: u32,
        network: u32,
        family: u32,
        address: [u8; 16],
    }
    /// `sets`: the union of the rules of a list of groups. Written before a port names it, never after.
    SetRecord as set {
        /// `SET_*` by direction and family.
        flags: [[u32; 2]; 2],
        /// Rule words of rules for any peer and protocol.
        all: [[u32; 2]; 2],
        /// The least rank + 1 among rules that are found by exact address, and by prefix; !0: none.
        least_exact: [[u32; 2]; 2],
        least_prefix: [[u32; 2]; 2],
        /// By family and (TCP, UDP): which 1,024ths of the local ports some ingress rule covers.
        ingress_ports: [[u64; 2]; 2],
        /// Of the rendered content, to recognize a set after a restart.
        digest: [u64; 2],
        /// Where the set's rules start in `rule_stats`.
        rule_base: u32,
        rules: u32,
        /// By family: error types that rules for any peer permit whole, ingress and egress.
        errors_in: [u8; 2],
        errors_out: [u8; 2],
        pad: u32,
    }
    /// Key of `exact`: (scope * 2 + family, address) -> peers.
    ExactKey as exact_key {
        scope_family: u32,
        address: [u8; 16],
    }
    /// Key of `prefixes` (longest prefix match); its peers are all that contain the prefix.
    PrefixKey as prefix_key {
        /// 32 + the address bits that count.
        prefix_len: u32,
        scope_family: u32,
        address: [u8; 16],
    }
    /// Who an address is to the rules; 0 ends the list. A group, an address group, a prefix, or a
    /// union of those that don't fit.
    Peers as peers {
        peer: [u32; 4],
    }
    /// Key of `policy`. All fields are exact; a packet asks once per peer of its remote address, by
    /// its protocol and, where the set says so, for any protocol.
    PolicyKey as policy_key {
        set: u32,
        peer: u32,
        /// 0 to 255, or `PROTOCOL_ANY`.
        protocol: u16,
        direction: u8,
        family: u8,
    }
    /// What the rules of a set permit for one peer and protocol. L4 values are destination ports, or
    /// ICMP type * 256 + code.
    PolicyEntry as policy_entry {
        /// Rule word outside the ranges.
        whole: u32,
        /// Where the ranges begin in `ranges`; of a single one, first * 65,536 + last itself.
        base: u32,
        count: u32,
        /// Of a single range.
        word: u32,
        /// ICMP entries: error types that are permitted whole. Any-protocol entries: all of them.
        errors: u32,
    }
    /// `ranges`: disjoint, sorted inside one policy entry. The word has `whole` merged in.
    Range as range {
        first: u16,
        last: u16,
        word: u32,
    }
    /// `port_state`, by slot: written by the hooks.
    PortState as port_state {
        /// Number of the port that the rest is about.
        number: u32,
        established: u32,
        half_open: u32,
        /// The next place to give.
        hand: u32,
        /// ICMP errors about elided flows by direction: the second, and how many in it.
        error_second: [u32; 2],
        error_count: [u32; 2],
        fragment_hand: u32,
        pad: u32,
    }
    /// The one entry of `host_state`.
    HostState as host_state {
        flows: u64,
    }
    /// `flows`: keyed by a keyed 64-bit hash of (port number, tuple). The tuple is in here, too, and
    /// compared: a collision can cost a flow its state, never a verdict.
    Flow as flow {
        number: u32,
        slot: u16,
        protocol: u8,
        /// `FLOW_V6`, `FLOW_EGRESS`, `FLOW_ASKED_BY_LOCAL`.
        kind: u8,
        local: [u8; 16],
        remote: [u8; 16],
        /// Transport ports; ICMP: the identifier, and the request's type.
        local_l4: u16,
        remote_l4: u16,
        /// The generation that `word` was found under.
        generation: u32,
        seen_ticks: u32,
        /// What permits its first packet; 0: nothing does any more.
        word: u32,
        /// Its place + 1 while half-open.
        place: u32,
        /// `TCP_*`; other protocols are `TCP_OPENING` or `TCP_ESTABLISHED`.
        state: u8,
        /// `FLOW_FIN_*`, `FLOW_REPLIED`.
        marks: u8,
        pad: u16,
    }
    /// Key of `fragments`: a datagram whose first fragment passed.
    FragmentKey as fragment_key {
        number: u32,
        id: u32,
        source: [u8; 16],
        destination: [u8; 16],
        /// IPv4 only.
        protocol: u8,
        direction: u8,
        family: u8,
        pad: u8,
    }
    FragmentEntry as fragment_entry {
        /// Bytes of the datagram that the first fragment holds.
        end: u32,
        seen_ticks: u32,
        place: u32,
    }
    /// `paths` (per CPU), by a hash of device and MAC: where the host was seen to forward what is from
    /// this device to this MAC, and when last.
    Path as path {
        from: u32,
        mac: [u8; 6],
        pad: u16,
        to: u32,
        /// Bytes of a frame that the device takes.
        longest: u32,
        seen_ticks: u32,
    }
    /// `rule_stats` and `port_stats` (per CPU).
    Stat as stat {
        packets: u64,
        bytes: u64,
    }
    /// `events`: a sampled drop.
    Event as event {
        time_ns: u64,
        number: u32,
        slot: u32,
        /// A drop reason's number.
        reason: u32,
        direction: u32,
        length: u32,
        captured: u32,
    }
    /// What `run` and `dry_run` answer, in the packet's control block.
    Answer as answer {
        /// `PASS_*`, or a drop reason's number.
        outcome: u32,
        /// The rule word behind it, or 0.
        word: u32,
        /// 1: a flow of the packet's tuple was found; 2: it was live; 4: the packet's flow is elidable.
        notes: u32,
        /// The set that the word belongs to.
        set: u32,
        now_ticks: u32,
    }
    /// What `sweep` is asked, and what it answers, in the packet's control block.
    SweepArgs as sweep_args {
        /// `SWEEP_*`.
        mode: u32,
        /// Only this port's flows; 0: all.
        number: u32,
        removed: u32,
        seen: u32,
        now_ticks: u32,
    }
}

/// The C header with all of the above.
#[allow(dead_code)]
pub fn header() -> String {
    let mut text = String::from("/* Generated from layout.rs. */\n#pragma once\n\n");
    for (name, value) in NUMBERS {
        text += &format!("#define {name} {value}u\n");
    }
    for (name, size, fields) in STRUCTS {
        text += &format!("\nstruct {name} {{\n");
        for (field, rust) in *fields {
            text += &format!("\t{};\n", c_declaration(field, rust));
        }
        text += &format!("}};\n_Static_assert(sizeof(struct {name}) == {size}, \"{name}\");\n");
    }
    text
}

/// `[[u32; 2]; 3]` named `x` is `__u32 x[3][2]`.
#[allow(dead_code)]
fn c_declaration(field: &str, rust: &str) -> String {
    let mut inner = rust.trim();
    let mut dimensions = String::new();
    while let Some(array) = inner.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        let (element, length) = array.rsplit_once(';').expect("an array type has a length");
        dimensions += &format!("[{}]", length.trim());
        inner = element.trim();
    }
    format!("__{inner} {field}{dimensions}")
}
