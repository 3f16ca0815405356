// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "layout.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tc")
int from_port(struct __sk_buff *skb)
{
	return 2;
}
