//! Transport headers.

use super::bytes::Put;
use super::checksum::{Sum, crc32c};
use super::{Builder, Ip, Lies, fit};
use crate::TcpFlags;
use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// The payload is all there is.
    Raw {
        protocol: u8,
    },
    Tcp {
        src: u16,
        dst: u16,
        flags: u8,
        sequence: u32,
        acknowledged: u32,
        window: u16,
        options: Vec<u8>,
    },
    Udp {
        src: u16,
        dst: u16,
    },
    UdpLite {
        src: u16,
        dst: u16,
    },
    Sctp {
        src: u16,
        dst: u16,
    },
    Dccp {
        src: u16,
        dst: u16,
    },
    /// ICMP or ICMPv6, by the packet's family.
    Icmp {
        icmp_type: u8,
        code: u8,
        rest: [u8; 4],
    },
    Igmp {
        igmp_type: u8,
    },
}

impl Builder<Ip> {
    fn transport(mut self, transport: Transport) -> Self {
        self.content.transport = transport;
        self
    }

    /// Flags as in [`TcpFlags`]; any others too.
    pub fn tcp(self, src: u16, dst: u16, flags: u8) -> Self {
        self.transport(Transport::Tcp {
            src,
            dst,
            flags,
            sequence: 1,
            acknowledged: if flags & TcpFlags::ACK != 0 { 1 } else { 0 },
            window: 65_535,
            options: Vec::new(),
        })
    }

    /// Numbers and options of a TCP header; nothing happens to other packets.
    pub fn tcp_details(mut self, seq: u32, ack: u32, win: u16, tcp_options: &[u8]) -> Self {
        if let Transport::Tcp {
            sequence,
            acknowledged,
            window,
            options,
            ..
        } = &mut self.content.transport
        {
            (*sequence, *acknowledged, *window) = (seq, ack, win);
            *options = tcp_options.to_vec();
        }
        self
    }

    pub fn udp(self, src: u16, dst: u16) -> Self {
        self.transport(Transport::Udp { src, dst })
    }

    pub fn udp_lite(self, src: u16, dst: u16) -> Self {
        self.transport(Transport::UdpLite { src, dst })
    }

    pub fn sctp(self, src: u16, dst: u16) -> Self {
        self.transport(Transport::Sctp { src, dst })
    }

    pub fn dccp(self, src: u16, dst: u16) -> Self {
        self.transport(Transport::Dccp { src, dst })
    }

    /// Any ICMP or ICMPv6 message; `rest` is bytes 4 to 7.
    pub fn icmp(self, icmp_type: u8, code: u8, rest: [u8; 4]) -> Self {
        self.transport(Transport::Icmp {
            icmp_type,
            code,
            rest,
        })
    }

    /// Another code for an ICMP message; nothing happens to other packets.
    pub fn icmp_code(mut self, new: u8) -> Self {
        if let Transport::Icmp { code, .. } = &mut self.content.transport {
            *code = new;
        }
        self
    }

    /// An echo or timestamp message: bytes 4 and 5 are the identifier, 6 and 7 the sequence number.
    pub fn icmp_query(self, icmp_type: u8, identifier: u16, sequence: u16) -> Self {
        let [a, b] = identifier.to_be_bytes();
        let [c, d] = sequence.to_be_bytes();
        self.icmp(icmp_type, 0, [a, b, c, d])
    }

    pub fn echo_request(self, identifier: u16) -> Self {
        let icmp_type = self.by_family(8, 128);
        self.icmp_query(icmp_type, identifier, 1)
    }

    pub fn echo_reply(self, identifier: u16) -> Self {
        let icmp_type = self.by_family(0, 129);
        self.icmp_query(icmp_type, identifier, 1)
    }

    /// An ICMP error about a packet, of which it quotes these bytes ([`Builder::packet`]).
    pub fn icmp_error(self, icmp_type: u8, code: u8, quoted: &[u8]) -> Self {
        let asks_mtu = match self.content.src {
            IpAddr::V4(_) => (icmp_type, code) == (3, 4),
            IpAddr::V6(_) => icmp_type == 2,
        };
        let rest = if asks_mtu { [0, 0, 5, 0] } else { [0; 4] };
        self.icmp(icmp_type, code, rest).payload(quoted)
    }

    pub fn igmp(self, igmp_type: u8) -> Self {
        self.transport(Transport::Igmp { igmp_type })
    }

    /// Any protocol by number: these bytes are all that follows the IP headers.
    pub fn protocol(self, protocol: u8, bytes: &[u8]) -> Self {
        self.transport(Transport::Raw { protocol }).payload(bytes)
    }

    pub(super) fn by_family<T>(&self, v4: T, v6: T) -> T {
        match self.content.src {
            IpAddr::V4(_) => v4,
            IpAddr::V6(_) => v6,
        }
    }
}

impl Transport {
    pub(super) fn protocol(&self, src: IpAddr) -> u8 {
        match self {
            Transport::Raw { protocol } => *protocol,
            Transport::Tcp { .. } => 6,
            Transport::Udp { .. } => 17,
            Transport::UdpLite { .. } => 136,
            Transport::Sctp { .. } => 132,
            Transport::Dccp { .. } => 33,
            Transport::Icmp { .. } if src.is_ipv4() => 1,
            Transport::Icmp { .. } => 58,
            Transport::Igmp { .. } => 2,
        }
    }

    /// Header and payload; `pseudo` holds the two addresses.
    pub(super) fn bytes(&self, protocol: u8, pseudo: Sum, payload: &[u8], lies: &Lies) -> Vec<u8> {
        let mut out = Vec::with_capacity(60 + payload.len());
        let pseudo = |length: usize| pseudo.word(length as u32).word(u32::from(protocol));
        let udp_length = |out: &mut Vec<u8>| {
            let length = fit(8 + payload.len());
            out.put16(lies.l4_length.unwrap_or(length));
        };
        // Where the checksum goes, and what it covers beside the message; `None`: no 16-bit one.
        let (at, covered): (Option<usize>, Option<Sum>) = match self {
            Transport::Raw { .. } => (None, None),
            Transport::Tcp {
                src,
                dst,
                flags,
                sequence,
                acknowledged,
                window,
                options,
            } => {
                let header = 20 + options.len().next_multiple_of(4);
                put_ports(&mut out, *src, *dst);
                out.put32(*sequence);
                out.put32(*acknowledged);
                out.put(&[((header / 4).min(15) as u8) << 4, *flags]);
                out.put16(*window);
                out.put32(0);
                out.put(options);
                out.resize(header, 0);
                (Some(16), Some(pseudo(header + payload.len())))
            }
            Transport::Udp { src, dst } => {
                put_ports(&mut out, *src, *dst);
                udp_length(&mut out);
                out.put16(0);
                (Some(6), Some(pseudo(8 + payload.len())))
            }
            Transport::UdpLite { src, dst } => {
                put_ports(&mut out, *src, *dst);
                udp_length(&mut out);
                out.put16(0);
                (Some(6), Some(pseudo(8 + payload.len())))
            }
            Transport::Sctp { src, dst } => {
                put_ports(&mut out, *src, *dst);
                out.put32(0);
                out.put32(0);
                (None, None)
            }
            Transport::Dccp { src, dst } => {
                put_ports(&mut out, *src, *dst);
                // Data offset 3 words, all covered; a request with a short sequence number.
                out.put(&[3, 0, 0, 0, 0, 0, 0, 1]);
                (Some(6), Some(pseudo(12 + payload.len())))
            }
            Transport::Icmp {
                icmp_type,
                code,
                rest,
            } => {
                out.put(&[*icmp_type, *code, 0, 0]);
                out.put(rest);
                let covered = match protocol {
                    1 => Sum::default(),
                    _ => pseudo(8 + payload.len()),
                };
                (Some(2), Some(covered))
            }
            Transport::Igmp { igmp_type } => {
                out.put(&[*igmp_type, 0, 0, 0]);
                (Some(2), Some(Sum::default()))
            }
        };
        out.put(payload);
        if let Transport::Sctp { .. } = self {
            let crc = crc32c(&out).to_le_bytes();
            out[8..12].copy_from_slice(&crc);
        }
        if let (Some(at), Some(covered)) = (at, covered) {
            let sum = match (self, covered.bytes(&out).complement()) {
                // No checksum at all is what 0 means here.
                (Transport::Udp { .. } | Transport::UdpLite { .. }, 0) => 0xffff,
                (_, sum) => sum,
            };
            let sum = lies.l4_checksum.unwrap_or(sum).to_be_bytes();
            out[at..at + 2].copy_from_slice(&sum);
        }
        out
    }
}

fn put_ports(out: &mut Vec<u8>, src: u16, dst: u16) {
    out.put16(src);
    out.put16(dst);
}
