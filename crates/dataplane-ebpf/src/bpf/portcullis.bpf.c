/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Portcullis, kernel side: judges the packets of VMs' devices.
 *
 *   hook -> parse -> guard -> conntrack -> identity -> policy -> verdict
 *
 * The two gates are one function of (port, direction, packet), callable from any hook. A device's
 * ingress is what the VM sends, our egress; its egress is what the VM receives.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "layout.h"
#include "maps.h"
#include "lookup.h"
#include "packet.h"
#include "policy.h"
#include "guard.h"
#include "conntrack.h"
#include "delivery.h"

#define NOTE_FLOW 1
#define NOTE_LIVE 2
#define NOTE_ELIDABLE 4

static __always_inline __u32 rule_outcome(struct gate *g, __u32 word)
{
	g->word = word;
	return word ? PASS_RULE : NO_RULE;
}

/* An ICMP error about an elidable flow: permitted by a stateful group's rule, and not too many. */
static __noinline int judge_elided_error(struct gate *g, struct tuple *t)
{
	__u32 direction = g->direction & 1, in, out, second, count;
	struct port_state *state = state_of(g);

	if (!state || g->config->elision != ELISION_ON || !may_elide(g, t))
		return NO_RULE;
	if (!is_ports(g->port, MAC_DESTINATION, t->kind & FLOW_V6 ? FAM_V6 : FAM_V4, t->local))
		return NO_RULE;
	in = flow_permits(g, t, DIR_INGRESS);
	out = flow_permits(g, t, DIR_EGRESS);
	if (!in || !out || !((in | out) & WORD_STATEFUL))
		return NO_RULE;
	second = clock_second(g->config);
	count = state->error_second[direction] == second ? state->error_count[direction] : 0;
	if (count >= g->config->elided_errors_per_s)
		return ERROR_RATE;
	if (!g->dry) {
		state->error_second[direction] = second;
		state->error_count[direction] = count + 1;
	}
	return PASS_ELIDED_ERROR;
}

static __always_inline bool is_error(struct packet *p)
{
	__u8 type = icmp_type(p);

	if (p->l4 != ICMP)
		return false;
	return p->family == FAM_V4 ? type == 3 || type == 11 || type == 12 : type >= 1 && type <= 4;
}

/* Errors, and what else quotes a packet: nothing is live about a quoted one of these. */
static __always_inline bool quotes_packet(struct packet *p)
{
	__u8 type = icmp_type(p);

	if (p->l4 != ICMP)
		return false;
	return is_error(p) || (p->family == FAM_V4 ? type == 4 || type == 5 : type == 137);
}

/* Of a quoted packet, and apart from the way of others: there each call costs, and much stack. */
static __noinline bool quoted_tuple(struct tuple *t, struct packet *quoted, __u32 direction)
{
	return tuple_of(t, quoted, direction);
}

static __noinline struct flow *quoted_flow(struct gate *g, struct tuple *t)
{
	__u64 hash = flow_hash(g->config, g->port->number, t);
	struct flow *f = bpf_map_lookup_elem(&flows, &hash);

	return f && is_flow(f, g->port->number, t) ? f : NULL;
}

/* An ICMP error that no rule permits: is it about a live flow, or an elidable one? */
static __noinline int judge_error(struct __sk_buff *skb, struct gate *g, struct packet *p)
{
	__u32 opposite = g->direction == DIR_INGRESS ? DIR_EGRESS : DIR_INGRESS;
	__u32 index = g->run;
	struct quote *quote = bpf_map_lookup_elem(&quotes, &index);
	struct packet *quoted;
	struct tuple *tuple;
	struct flow *f;

	if (!quote)
		return NO_RULE;
	quoted = &quote->packet;
	tuple = &quote->tuple;
	__builtin_memset(quoted, 0, sizeof(*quoted));
	quoted->family = p->family;
	if (parse_ip(skb, quoted, p->l4_at + 8, p->end, true) || quoted->fragment == LATER || quotes_packet(quoted))
		return NO_RULE;
	if (!same16(quoted->source, p->destination) || !quoted_tuple(tuple, quoted, opposite))
		return NO_RULE;
	f = quoted_flow(g, tuple);
	if (f && !is_expired(g->config, f, g->now)) {
		g->notes |= NOTE_FLOW;
		g->word = flow_word(g, f, tuple);
		if (g->word) {
			g->notes |= NOTE_LIVE;
			return PASS_LIVE;
		}
	}
	return judge_elided_error(g, tuple);
}

/* A packet for whose tuple there is an unexpired flow. */
static __always_inline int judge_with_flow(struct gate *g, struct packet *p, struct tuple *t, struct flow *f,
					   __u64 hash)
{
	bool reply = g->direction != (f->kind & FLOW_EGRESS ? DIR_EGRESS : DIR_INGRESS);
	__u32 word = flow_word(g, f, t);
	bool restartable = !word;

	g->notes |= NOTE_FLOW | (word ? NOTE_LIVE : 0);
	if (p->protocol == TCP && (f->state == TCP_CLOSING || f->state == TCP_RESET))
		restartable = true;
	if (restartable && is_start_syn(p) && starts(g, p)) {
		__u32 fresh = reply ? flow_permits(g, t, g->direction) : word;

		if (fresh & WORD_STATEFUL) {
			struct port_state *state = state_of(g);

			if (!state || !within_budget(g, state))
				return FLOW_BUDGET;
			if (!g->dry)
				forget(f, hash);
			g->word = fresh;
			return start_flow(g, t, hash, fresh) ?: PASS_RULE;
		}
	}
	if (reply) {
		bool late_syn = p->protocol == TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
				f->state != TCP_OPENING;

		if (!word || late_syn)
			return rule_outcome(g, flow_permits(g, t, g->direction));
		g->word = word;
		if (!g->dry)
			touch(g, f, hash, p, true);
		return PASS_LIVE;
	}
	if (word && !g->dry)
		touch(g, f, hash, p, false);
	return rule_outcome(g, word);
}

/* Conntrack, identity and policy of a packet that belongs to a flow, if not an elidable one. */
static __always_inline int judge_tuple(struct gate *g, struct packet *p, struct tuple *t)
{
	struct flow *f;
	__u32 word = 0;
	bool judged = false;
	__u64 hash;

	if (may_elide(g, t)) {
		judged = true;
		word = flow_permits(g, t, g->direction);
		if (word && flow_permits(g, t, g->direction == DIR_INGRESS ? DIR_EGRESS : DIR_INGRESS) &&
		    mode_elides(g, t)) {
			g->notes |= NOTE_ELIDABLE;
			return rule_outcome(g, word);
		}
	}
	hash = flow_hash(g->config, g->port->number, t);
	f = bpf_map_lookup_elem(&flows, &hash);
	if (f && is_flow(f, g->port->number, t)) {
		if (!is_expired(g->config, f, g->now))
			return judge_with_flow(g, p, t, f, hash);
		if (!g->dry)
			forget(f, hash);
	}
	if (!judged)
		word = flow_permits(g, t, g->direction);
	if (word & WORD_STATEFUL && starts(g, p)) {
		int spent = start_flow(g, t, hash, word);

		if (spent)
			return spent;
	}
	return rule_outcome(g, word);
}

/* All in, all out: whatever the packet is, it passes by that rule, and needs no state. */
static __always_inline bool is_open(struct gate *g, __u8 family)
{
	__u32 direction = g->direction & 1, f = family & 1;

	return g->config->elision != ELISION_OFF && g->set->flags[direction][f] & SET_ALL_IS_LEAST &&
	       g->set->all[1 - direction][f];
}

static __always_inline int judge_l4(struct __sk_buff *skb, struct gate *g, struct packet *p)
{
	struct tuple tuple;
	struct question q;
	int outcome;

	if (is_open(g, p->family)) {
		g->notes |= NOTE_ELIDABLE;
		return rule_outcome(g, g->set->all[g->direction & 1][p->family & 1]);
	}
	if (tuple_of(&tuple, p, g->direction))
		return judge_tuple(g, p, &tuple);
	question_of(&q, g, p->protocol, p->family, g->direction, p->destination_l4);
	outcome = rule_outcome(g, permits(g->set, &q, (void *)tuple.remote));
	if (outcome == NO_RULE && is_error(p))
		outcome = judge_error(skb, g, p);
	return outcome;
}

/* One gate: (port, direction, packet) -> outcome. */
static __always_inline int judge_packet(struct __sk_buff *skb, struct gate *g, struct packet *p)
{
	__u16 mac = MAC_OWN;
	int outcome;

	if (!(g->port->flags & PORT_SECURITY))
		return PASS_UNGUARDED;
	if (p->broken)
		return p->broken;
	if (p->ethertype == TYPE_ARP || p->ethertype == TYPE_RARP)
		return guard_arp(skb, g->port, p, g->direction);
	if (g->direction == DIR_EGRESS && !(mac = mac_number(g->port, p->source_mac)))
		return SPOOFED_MAC;
	if (!is_ip(p))
		return PASS_INFRASTRUCTURE;
	outcome = g->direction == DIR_EGRESS ? guard_from_port(skb, g->port, p, mac)
					     : guard_to_port(skb, g->port, p);
	if (outcome && outcome != PASS_INFRASTRUCTURE)
		return outcome;
	if (p->fragment == LATER)
		return judge_later_fragment(g, p);
	if (!outcome)
		outcome = judge_l4(skb, g, p);
	if (p->fragment == FIRST && !g->dry)
		note_first_fragment(g, p, outcome >= PASS_RULE);
	return outcome;
}

/* How a gate is asked: its direction, and by whom. */
#define HOW_DIRECTION 1
/* Write and count nothing. */
#define HOW_DRY 2
/* By BPF_PROG_RUN: a hook may interrupt it, on the same CPU. */
#define HOW_RUN 4

static __always_inline bool open_gate(struct gate *g, __u32 slot, __u32 how)
{
	__u32 set;

	g->config = settings();
	if (!g->config)
		return false;
	/* Before anything of the policy is read: what is judged meanwhile is judged again later. */
	g->generation = *(volatile __u32 *)&g->config->generation;
	g->port = port_in(slot);
	if (!g->port)
		return false;
	set = g->port->set;
	g->set = bpf_map_lookup_elem(&sets, &set);
	g->slot = slot;
	g->direction = how & HOW_DIRECTION;
	g->now = now_ticks(g->config);
	g->word = g->notes = 0;
	g->dry = how & HOW_DRY;
	g->run = how & HOW_RUN;
	return g->set;
}

static __always_inline void add(void *map, __u32 index, __u32 bytes)
{
	struct stat *stat = bpf_map_lookup_elem(map, &index);

	if (stat) {
		stat->packets++;
		stat->bytes += bytes;
	}
}

/* At most 8 events per 64 jiffies and CPU. */
static __noinline void report_drop(struct __sk_buff *skb, __u32 slot, __u32 direction, __u32 reason)
{
	struct { struct event event; __u8 bytes[EVENT_BYTES]; } *sample;
	__u32 zero = 0, tick = bpf_jiffies64() >> 6, length;
	struct event_gate *gate = bpf_map_lookup_elem(&event_gates, &zero);
	struct port *port = port_in(slot);

	if (!gate)
		return;
	if (gate->tick != tick) {
		gate->tick = tick;
		gate->count = 0;
	}
	if (gate->count++ >= 8)
		return;
	sample = bpf_ringbuf_reserve(&events, sizeof(*sample), 0);
	if (!sample)
		return;
	length = skb->len < EVENT_BYTES ? skb->len : EVENT_BYTES;
	__builtin_memset(sample, 0, sizeof(*sample));
	sample->event.time_ns = bpf_ktime_get_ns();
	sample->event.number = port ? port->number : 0;
	sample->event.slot = slot;
	sample->event.reason = reason;
	sample->event.direction = direction;
	sample->event.length = skb->len;
	sample->event.captured = length;
	/* Said again in bits, behind the compiler's back: verifiers before 6.8 learn nothing of "not 0". */
	asm volatile("" : "+r"(length));
	length = ((length - 1) & (EVENT_BYTES - 1)) + 1;
	bpf_skb_load_bytes(skb, 0, sample->bytes, length);
	bpf_ringbuf_submit(sample, 0);
}

static __always_inline void count(struct __sk_buff *skb, struct gate *g, __u32 outcome, __u32 word)
{
	__u32 base = g->slot * STATS_PER_PORT;

	if (outcome < PASS_RULE) {
		add(&port_stats, base + outcome, skb->len);
		report_drop(skb, g->slot, g->direction, outcome);
		return;
	}
	add(&port_stats, base + (g->direction == DIR_INGRESS ? STAT_PASSED_INGRESS : STAT_PASSED_EGRESS), skb->len);
	if (word)
		add(&rule_stats, g->set->rule_base + (word & WORD_RANK) - 1, skb->len);
}

/* Judges a parsed packet at a port's gate, and counts it. The outcome; a run's whole answer in cb. */
PROVEN_ONCE int pass_gate(struct __sk_buff *skb, struct packet *p, __u32 slot, __u32 how)
{
	struct gate gate;
	int outcome;

	if (!p)
		return NOT_READY;
	if (!open_gate(&gate, slot, how)) {
		if (how & HOW_RUN)
			skb->cb[0] = NOT_READY;
		else
			report_drop(skb, SLOT_CLOSED, how & HOW_DIRECTION, NOT_READY);
		return NOT_READY;
	}
	outcome = judge_packet(skb, &gate, p);
	if (!gate.dry)
		count(skb, &gate, outcome, gate.word);
	if (gate.run) {
		skb->cb[0] = outcome;
		skb->cb[1] = gate.word;
		skb->cb[2] = gate.notes;
		skb->cb[3] = gate.port->set;
		skb->cb[4] = gate.now;
	}
	return outcome;
}

SEC("tc") int from_port(struct __sk_buff *skb)
{
	struct config *config = settings();
	struct packet packet = {};
	__u32 outcome, receiver;

	if (!config)
		return TC_ACT_SHOT;
	packet.broken = parse_frame(skb, config, &packet);
	outcome = pass_gate(skb, &packet, slot_of(skb->ifindex), DIR_EGRESS);
	if (outcome < PASS_RULE)
		return TC_ACT_SHOT;
	if (!config->direct || outcome >= PASS_INFRASTRUCTURE)
		return TC_ACT_UNSPEC;
	receiver = path_from(skb, config, &packet);
	if (!receiver)
		return TC_ACT_UNSPEC;
	if (pass_gate(skb, &packet, slot_of(receiver), DIR_INGRESS) < PASS_RULE)
		return TC_ACT_SHOT;
	mark_judged(skb, config, receiver);
	return bpf_redirect(receiver, 0);
}

SEC("tc") int to_port(struct __sk_buff *skb)
{
	struct config *config = settings();
	struct packet packet = {};

	if (!config)
		return TC_ACT_SHOT;
	if (config->direct && is_judged(skb, config))
		return TC_ACT_UNSPEC;
	packet.broken = parse_frame(skb, config, &packet);
	if (pass_gate(skb, &packet, slot_of(skb->ifindex), DIR_INGRESS) < PASS_RULE)
		return TC_ACT_SHOT;
	if (config->direct)
		note_path(skb, &packet);
	return TC_ACT_UNSPEC;
}

/* For BPF_PROG_RUN alone: cb = slot, direction, dry; the answer comes back in cb. */
SEC("tc") int judge(struct __sk_buff *skb)
{
	__u32 slot = skb->cb[0], how = HOW_RUN | (skb->cb[1] & HOW_DIRECTION) | (skb->cb[2] ? HOW_DRY : 0);
	struct config *config = settings();
	struct packet packet = {};

	for (int i = 0; i < 5; i++)
		skb->cb[i] = 0;
	if (!config)
		return TC_ACT_SHOT;
	packet.broken = parse_frame(skb, config, &packet);
	return pass_gate(skb, &packet, slot, how) < PASS_RULE ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

static __noinline bool is_elidable(struct gate *g, struct flow *f)
{
	struct tuple tuple = {
		.local_l4 = f->local_l4, .remote_l4 = f->remote_l4, .protocol = f->protocol,
		.kind = f->kind & ~FLOW_EGRESS,
	};

	__builtin_memcpy(tuple.local, f->local, 16);
	__builtin_memcpy(tuple.remote, f->remote, 16);
	return may_elide(g, &tuple) && flow_permits(g, &tuple, DIR_INGRESS) &&
	       flow_permits(g, &tuple, DIR_EGRESS) && mode_elides(g, &tuple);
}

/* Looks at each flow again at the moment of its removal: none that has just been touched is lost. */
static long sweep_flow(void *map, const void *key, void *value, void *context)
{
	struct sweep_args *args = context;
	struct flow *f = value;
	struct gate gate;
	bool gone;

	args->seen++;
	if (args->number && f->number != args->number)
		return 0;
	gone = !open_gate(&gate, f->slot, DIR_INGRESS | HOW_DRY | HOW_RUN) || gate.port->number != f->number ||
	       is_expired(gate.config, f, gate.now) ||
	       (args->mode == SWEEP_ELIDABLE && is_elidable(&gate, f));
	if (gone && forget(f, *(const __u64 *)key))
		args->removed++;
	return 0;
}

/* Flows expire at look-up; sweeping gives their memory and budgets back. The agent asks for it each
 * second. When nobody has for a minute, the kernel does it by itself, every ten seconds. */
#define UNATTENDED_NS 60000000000ull
#define BY_ITSELF_NS 10000000000ull
#define CLOCK_MONOTONIC 1

struct sweeper { struct bpf_timer timer; };
MAP(sweepers, ARRAY, __u32, struct sweeper, 1, 0);

/* An empty table of millions of buckets is not walked. */
static __always_inline void sweep_flows(struct sweep_args *args)
{
	__u32 zero = 0;
	struct host_state *host = bpf_map_lookup_elem(&host_state, &zero);

	if (host && host->flows)
		bpf_for_each_map_elem(&flows, sweep_flow, args, 0);
}

static int sweep_unattended(void *map, __u32 *key, struct sweeper *sweeper)
{
	struct sweep_args args = {};

	sweep_flows(&args);
	bpf_timer_start(&sweeper->timer, BY_ITSELF_NS, 0);
	return 0;
}

/* For BPF_PROG_RUN alone: cb = SWEEP_*, a port's number or 0; removed and seen come back in cb. (A
 * syscall program could not: those may not use longest-prefix maps.) */
SEC("tc") int sweep(struct __sk_buff *skb)
{
	struct sweep_args args = { .mode = skb->cb[0], .number = skb->cb[1] };
	__u32 zero = 0;
	struct config *config = settings();
	struct sweeper *sweeper = bpf_map_lookup_elem(&sweepers, &zero);

	if (!config || !sweeper)
		return TC_ACT_UNSPEC;
	skb->cb[4] = now_ticks(config);
	if (args.mode == SWEEP_NOTHING)
		return TC_ACT_UNSPEC;
	sweep_flows(&args);
	/* Fails from the second time on. */
	bpf_timer_init(&sweeper->timer, &sweepers, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&sweeper->timer, sweep_unattended);
	bpf_timer_start(&sweeper->timer, UNATTENDED_NS, 0);
	skb->cb[2] = args.removed;
	skb->cb[3] = args.seen;
	return TC_ACT_UNSPEC;
}

#include "migration.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
