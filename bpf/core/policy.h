/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The policy, in the order in which its parts build on each other. The includer
 * has included the parts without ports (key, heap, token, walk, return, state)
 * and defined the ports (ports.h) before.
 */
#ifndef PROXY_CORE_POLICY_H
#define PROXY_CORE_POLICY_H

#include "queue.h"
#include "../group/weight.h"
#include "clock.h"
#include "../place/bits.h"
#include "../group/limit.h"
#include "../group/load.h"
#include "../place/place.h"
#include "../group/park.h"
#include "inversion.h"
#include "donor.h"
#include "yield.h"
#include "charge.h"
#include "hint.h"
#include "urgent.h"
#include "hop.h"
#include "resolve.h"
#include "pick.h"
#include "task.h"

#endif /* PROXY_CORE_POLICY_H */
