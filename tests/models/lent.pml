/* SPDX-License-Identifier: MIT
 *
 * What is lent to an event loop, while others take some of it back and the loop goes to sleep (runtime/loop/event_loop.cpp,
 * runtime/loop/mailbox.hpp, recall in runtime/executor/placing.cpp):
 *
 *   the lent list    beside the mailbox's word. A sender pushes there and then nudges: if the word says parked, it clears that and
 *                    owes a wake
 *   the shelf        in the loop's lock (asymmetric_lock.pml), like the way from the list to it
 *   1 sender         lends TOKENS
 *   1 taker          looks LOOKS times: where it finds the owner in a turn, it empties the list onto the shelf, in the lock, takes
 *                    what it may run, and leaves the rest
 *   1 owner          turns: list to shelf, runs what is there; idle: parks, looks, sleeps until it is woken
 *
 * Defining one of these macros breaks the protocol in one place, and the checker must then complain:
 *   LOOK_OUTSIDE     before it sleeps the owner looks at the shelf and at the list without its lock
 *   LIST_FIRST       … in the other order
 *   NO_LIST_LOOK     … at the shelf only
 *   NUDGE_FIRST      the sender nudges and then lends
 */

#ifndef TOKENS
#define TOKENS 2
#endif
#ifndef LOOKS
#define LOOKS 2
#endif

byte lent = 0, shelf = 0, in_hand = 0, begun = 0;
bool locked = false, parked = false, woken = false, asleep = false, in_turn = false;
byte on_the_way = 0; /* whoever owes the owner a look */

inline lock() { atomic { !locked -> locked = true } }
inline unlock() { locked = false }

inline nudge() {
    atomic {
        if
        :: parked -> parked = false; owed = true
        :: else -> on_the_way--
        fi
    }
    if
    :: owed -> atomic { woken = true; owed = false; on_the_way-- }
    :: else -> skip
    fi
}

proctype sender() {
    byte left = TOKENS;
    bool owed = false;
    do
    :: left == 0 -> break
    :: else ->
        left--;
#ifdef NUDGE_FIRST
        on_the_way++;
        nudge();
        lent++
#else
        atomic { lent++; on_the_way++ }
        nudge()
#endif
    od
}

proctype taker() {
    byte left = LOOKS;
    do
    :: left == 0 -> break
    :: left > 0 ->
        left--;
        in_turn; /* a glance: it may have ended since */
        lock();
        atomic { in_hand = lent; lent = 0 }
        atomic { shelf = shelf + in_hand; in_hand = 0 }
        if
        :: shelf > 0 -> atomic { shelf--; begun++ }
        :: skip /* not for this core, or not yet */
        fi;
        unlock()
    :: left > 0 -> left--
    od
}

proctype owner() {
    bool may_sleep = false;
    do
    ::
        in_turn = true;
        lock();
        atomic { shelf = shelf + lent; lent = 0 }
        unlock();
        do
        :: shelf == 0 -> break
        :: else ->
            lock();
            if
            :: shelf > 0 -> atomic { shelf--; begun++ }
            :: else -> skip
            fi;
            unlock()
        od;
        in_turn = false;
        if
        :: begun == TOKENS -> break
        :: else -> skip
        fi;
        parked = true;
#ifdef LOOK_OUTSIDE
        may_sleep = (shelf == 0);
        may_sleep = may_sleep && lent == 0;
#else
#ifdef LIST_FIRST
        may_sleep = (lent == 0);
        may_sleep = may_sleep && shelf == 0;
#else
        lock();
        may_sleep = (shelf == 0);
#ifndef NO_LIST_LOOK
        may_sleep = may_sleep && lent == 0;
#endif
        unlock();
#endif
#endif
        may_sleep = may_sleep && parked;
        if
        :: may_sleep ->
            asleep = true;
            end: atomic { woken -> asleep = false; woken = false }
        :: else -> skip
        fi;
        atomic { parked = false; may_sleep = false }
    od
}

init { atomic { run sender(); run taker(); run owner() } }

ltl none_slept_on { [] !(asleep && !woken && on_the_way == 0 && !locked && lent + shelf > 0) }
