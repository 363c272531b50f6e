/* SPDX-License-Identifier: MIT
 *
 * The word of runtime/mailbox.hpp (list | parked | closed) and, beside it, a queue under a mutex whose senders nudge.
 *
 *   2 loops       push chains of one or two hooks, or fill the queue and nudge; never refused
 *   1 foreigner   submits; refused once the mailbox is closed
 *   1 closer      closes, waits for the two loops (not for the foreigner), then tells the owner to end
 *   1 owner       take, look beside, park, look beside again, sleep; ends after a last take
 *
 * Each operation on the word is one step, as it is one read-modify-write: an attempt of a compare-and-swap that fails
 * has no effect. A wake-up is a step of its own after the operation that owes it, so that it may come arbitrarily late.
 *
 * A lost wake-up is a state in which all senders are done, something waits, and the owner sleeps with no wake-up
 * pending. The announcement of the end is one more thing beside the mailbox, and the closer a sender while it makes it.
 * Defining one of the macros below breaks the protocol in one place, and the checker must then complain:
 *   NO_SECOND_LOOK  the owner does not look beside again after park
 *   NUDGE_FIRST     a sender nudges before it fills the queue
 *   BLIND_PARK      park does not care whether the list is empty
 *   TWO_WORDS       a sender looks at the parked bit, and pushes in another step
 *   NO_WAKE         a sender that found parked forgets the wake-up
 *   SUBMIT_TWO_STEPS  submit looks whether it is closed, and pushes in another step
 *   NO_LAST_TAKE    the owner ends without taking what was accepted before the close
 */

#ifndef OPERATIONS
#define OPERATIONS 2
#endif

byte listed = 0;     /* the word: hooks in the list, */
bool parked = false; /* … */
bool closed = false; /* … */

byte beside = 0; /* the queue under the mutex */
bool mutex = false;

byte wakes = 0; /* an eventfd: wake-ups add up, the sleeper takes them all */
bool stopping = false, asleep = false, ended = false;
byte loops_done = 0;
bool foreigner_done = false, closer_done = false;
byte accepted = 0, received = 0;

inline lock() { atomic { !mutex -> mutex = true } }
inline unlock() { mutex = false }

inline wake_if(owed) {
    if
#ifdef NO_WAKE
    :: owed -> skip
#else
    :: owed -> wakes++
#endif
    :: else -> skip
    fi;
    owed = false
}

inline push(count, owed) {
#ifdef TWO_WORDS
    owed = parked;
    atomic { listed = listed + count; accepted = accepted + count; parked = false }
#else
    atomic { owed = parked; parked = false; listed = listed + count; accepted = accepted + count }
#endif
}

inline nudge(owed) { atomic { owed = parked; parked = false } }

inline fill() {
    lock();
    atomic { beside++; accepted++ }
    unlock()
}

proctype loop_() {
    byte left = OPERATIONS;
    bool owed = false;
    do
    :: left == 0 -> break
    :: left > 0 ->
        left--;
        if
        :: push(1, owed)
        :: push(2, owed)
        ::
#ifdef NUDGE_FIRST
            nudge(owed);
            fill()
#else
            fill();
            nudge(owed)
#endif
        fi;
        wake_if(owed)
    od;
    loops_done++
}

proctype foreigner() {
    byte left = OPERATIONS;
    bool owed = false, refused = false;
    do
    :: left == 0 || refused -> break
    :: else ->
        left--;
#ifdef SUBMIT_TWO_STEPS
        refused = closed;
        if
        :: refused -> skip
        :: else -> push(1, owed)
        fi;
#else
        atomic {
            if
            :: closed -> refused = true
            :: else -> owed = parked; parked = false; listed++; accepted++
            fi
        }
#endif
        wake_if(owed)
    od;
    foreigner_done = true
}

proctype closer() {
    bool owed = false;
    closed = true;
    loops_done == 2;
    stopping = true;
    nudge(owed);
    wake_if(owed);
    closer_done = true
}

proctype owner() {
    byte got = 0;
    bool last = false, may_sleep = false;
    do
    ::
        last = stopping;
#ifdef NO_LAST_TAKE
        if
        :: last -> break
        :: else -> skip
        fi;
#endif
        atomic { got = listed; listed = 0; parked = false; received = received + got }
        lock();
        atomic { got = got + beside; received = received + beside; beside = 0 }
        unlock();
        if
        :: last -> break
        :: !last && got > 0 -> skip
        :: else ->
#ifdef BLIND_PARK
            atomic { parked = true; may_sleep = true }
#else
            atomic { may_sleep = (listed == 0); parked = may_sleep }
#endif
#ifndef NO_SECOND_LOOK
            if
            :: may_sleep ->
                lock();
                may_sleep = (beside == 0);
                unlock();
                may_sleep = may_sleep && !stopping
            :: else -> skip
            fi;
#endif
            if
            :: may_sleep ->
                asleep = true;
                atomic { wakes > 0 -> wakes = 0; asleep = false }
            :: else -> skip
            fi
        fi;
        got = 0
    od;
    ended = true
}

init {
    atomic { run loop_(); run loop_(); run foreigner(); run closer(); run owner() }
    loops_done == 2 && foreigner_done && closer_done && ended;
    assert(accepted == received && listed == 0 && beside == 0)
}

#define senders_done (loops_done == 2 && foreigner_done && (closer_done || !stopping))
#define work_waits (listed > 0 || beside > 0 || stopping)

ltl no_lost_wake { [] !(senders_done && work_waits && asleep && wakes == 0) }

/* With weak fairness: the owner ends, and has received everything that was accepted. */
ltl all_received { <> (ended && accepted == received) }
