/* SPDX-License-Identifier: MIT
 *
 * How an event loop goes to sleep, and how it is woken (runtime/loop/event_loop.cpp, runtime/loop/mailbox.hpp):
 *
 *   the word         list | parked | closed; each operation on it is one read-modify-write, hence one step
 *   beside           what waits in a queue under a mutex (a FIFO of the gate). Who fills it looks then for a core that is
 *                    marked as parked, and nudges it
 *   the ring         completions: wakes by MSG_RING, the poll of the eventfd, requests. Whoever reaps takes all of them,
 *                    and with them the owner's own wake-up
 *   the eventfd      readable or not. The poll shoots once: the owner prepares it, the next submission arms it, a write
 *                    completes it. Reaping it reads the eventfd, and the loop watches it no more
 *
 *   LOOPS senders    push chains of one or two hooks, or fill the queue and nudge; they wake by MSG_RING, and by the
 *                    eventfd if that fails; never refused
 *   FOREIGNERS       submit, and wake by the eventfd; refused once the mailbox is closed
 *   1 closer         closes, waits for the loops (not for foreigners), then announces the end beside the mailbox
 *   1 kernel         completes REQUESTS requests of the owner's, whose completions make something ready, send to another
 *                    loop, or cancel another request
 *   1 owner          turns, and goes idle. Between park and sleep it takes from the queue: what it takes may be held
 *                    (then it has found nothing), held ones may send to another loop; if it leaves some in the queue, it
 *                    nudges another core, or itself. All of that submits and reaps
 *
 * A wake-up is a step of its own after the operation that owes it, so it comes arbitrarily late: also when the owner was
 * woken by something else, and is about to sleep again.
 *
 * `on_the_way` counts those who owe the owner a look: it is raised in the step that makes the work visible, and lowered in the
 * step that has woken the owner or has found it awake. A lost wake-up is a state in which something waits, the owner
 * sleeps, its ring is empty, and nobody is on the way.
 *
 * Defining one of these macros breaks the protocol in one place, and the checker must then complain:
 *   SWALLOWED_WAKE    the owner sleeps without a look at whether it is still parked
 *   MAIL_LOOK         … it looks only whether the mailbox is empty
 *   NO_WATCH_LOOK     … it does not look whether it still watches the eventfd
 *   SEND_LEFT         … it sends once before it sleeps, and does not look whether that brought more to send
 *   CANCEL_LEFT       … it does not hand the kernel what a completion has cancelled meanwhile
 *   LATE_MARK         the owner marks itself as parked after it has looked at the queue
 *   NO_SECOND_LOOK    the owner does not look at the queue after park
 *   NUDGE_FIRST       a sender nudges before it fills the queue
 *   BLIND_PARK        park does not care whether the list is empty
 *   TWO_WORDS         a sender looks at the parked bit, and pushes in another step
 *   NO_WAKE           a sender that found parked forgets the wake-up
 *   SUBMIT_TWO_STEPS  submit looks whether it is closed, and pushes in another step
 *   NO_LAST_TAKE      the owner ends without taking what was accepted before the close
 */

#ifndef OPERATIONS
#define OPERATIONS 1
#endif
#ifndef LOOPS
#define LOOPS 2
#endif
#ifndef FOREIGNERS
#define FOREIGNERS 1
#endif
#ifndef REQUESTS
#define REQUESTS 1
#endif

/* the word */
byte listed = 0;
bool parked = false, closed = false;

byte beside = 0;
bool marked = false;
bool stopping = false;

/* the ring: completions … */
bool woken = false, polled = false, completed = false;
/* … and the poll of the eventfd */
mtype = { nowhere, prepared, armed };
mtype poll = nowhere;
bool readable = false;

/* the owner's */
bool watching = false, ready = false, to_cancel = false;
byte outbox = 0;
bool asleep = false, ended = false;

/* for the claims */
byte on_the_way = 0;
byte loops_done = 0, foreigners_done = 0;
bool closer_done = false;
byte accepted = 0, received = 0;

#define ring_empty (!woken && !polled && !completed)

/* One step, with what precedes it. */
inline write_eventfd() {
    readable = true;
    if
    :: poll == armed -> poll = nowhere; polled = true
    :: else -> skip
    fi
}

inline message_ring() {
    if
    :: woken = true
    :: write_eventfd() /* it failed */
    fi
}

/* `owed` becomes what the word says; nobody owes anything further to one who is awake. */
inline unpark(owed) {
    owed = parked;
    parked = false
}

inline wake_by_ring_if(owed) {
    if
    :: owed ->
        atomic {
#ifndef NO_WAKE
            message_ring();
#endif
            on_the_way--; owed = false
        }
    :: else -> skip
    fi
}

inline wake_by_eventfd_if(owed) {
    if
    :: owed ->
        atomic {
#ifndef NO_WAKE
            write_eventfd();
#endif
            on_the_way--; owed = false
        }
    :: else -> skip
    fi
}

inline push(count, owed) {
#ifdef TWO_WORDS
    owed = parked;
    atomic {
        parked = false; listed = listed + count; accepted = accepted + count;
        if
        :: owed -> on_the_way++
        :: else -> skip
        fi
    }
#else
    atomic {
        unpark(owed); listed = listed + count; accepted = accepted + count;
        if
        :: owed -> on_the_way++
        :: else -> skip
        fi
    }
#endif
}

inline fill() { atomic { beside++; accepted++; on_the_way++ } }

/* Who is on the way finds the owner parked, and goes on to wake it; or not, and has done its duty. */
inline nudge(owed) {
    if
    :: !marked -> atomic { on_the_way--; owed = false }
    :: marked ->
        atomic {
            unpark(owed);
            if
            :: owed -> skip
            :: else -> on_the_way--
            fi
        }
    fi
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
            on_the_way++;
            nudge(owed);
            atomic { beside++; accepted++ }
#else
            fill();
            nudge(owed)
#endif
        fi;
        wake_by_ring_if(owed)
    od;
    atomic { loops_done++; owed = false }
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
            :: else ->
                unpark(owed); listed++; accepted++;
                if
                :: owed -> on_the_way++
                :: else -> skip
                fi
            fi
        }
#endif
        wake_by_eventfd_if(owed)
    od;
    atomic { foreigners_done++; refused = false; left = 0 }
}

proctype closer() {
    bool owed = false;
    closed = true;
    loops_done == LOOPS;
    atomic { stopping = true; on_the_way++ }
    nudge(owed);
    wake_by_eventfd_if(owed);
    closer_done = true
}

proctype kernel() {
    byte left = REQUESTS;
    do
    :: left == 0 -> break
    :: left > 0 -> atomic { !completed && !ended -> completed = true; left-- }
    :: ended -> break
    od;
    left = 0
}

/* ---- the owner ---- */

inline submit() {
    atomic {
        if
        :: poll == prepared && readable -> poll = nowhere; polled = true
        :: poll == prepared && !readable -> poll = armed
        :: else -> skip
        fi
    }
}

inline reap() {
    atomic {
        woken = false;
        if
        :: polled -> polled = false; readable = false; watching = false
        :: else -> skip
        fi;
        if
        :: completed ->
            completed = false;
            if
            :: ready = true
            :: outbox++
            :: to_cancel = true
            fi
        :: else -> skip
        fi
    }
}

/* What is sent may find its receiver parked: then a wake is submitted, and what came meanwhile is reaped. */
inline send_once() {
    outbox = 0;
    if
    :: submit(); reap()
    :: skip
    fi
}

inline send_everything() {
    do
    :: outbox > 0 -> send_once()
    :: outbox == 0 -> break
    od;
    to_cancel = false
}

/* As one that parks. */
inline find_work() {
    atomic {
        if
        :: beside > 0 ->
            beside--;
            received++;
            if
            :: found = true
            :: skip /* held */
            :: outbox++ /* held, and its permit sends another token off */
            fi;
            left_some = (beside > 0)
        :: else -> skip
        fi;
        found = found || stopping
    }
    if
    :: left_some ->
        left_some = false;
        if
        ::
            atomic { received = received + beside; beside = 0 } /* another core was parked: it takes the rest */
            submit(); reap()
        ::
            atomic { unpark(owed) } /* this one is */
            if
            :: owed -> atomic { owed = false; message_ring() } submit(); reap()
            :: else -> skip
            fi
        fi
    :: else -> skip
    fi
}

inline prepare_watch() {
    atomic {
        if
        :: watching -> skip
        :: else -> watching = true; poll = prepared
        fi
    }
}

proctype owner() {
    byte got = 0;
    bool last = false, found = false, owed = false, left_some = false, may_sleep = false;
    do
    ::
        /* a turn */
        last = stopping;
#ifdef NO_LAST_TAKE
        if
        :: last -> break
        :: else -> skip
        fi;
#endif
        atomic { got = listed; listed = 0; parked = false; received = received + got }
        if
        :: last -> atomic { got = beside; beside = 0; received = received + got }; break
        :: else -> skip
        fi;
        atomic { ready = false; got = 0 }
        submit();
        reap();

        /* idle */
        send_everything();
        if
        :: ready -> skip
        :: else ->
#ifndef LATE_MARK
            marked = true;
#endif
            prepare_watch();
#ifdef BLIND_PARK
            atomic { parked = true; may_sleep = true }
#else
            atomic { may_sleep = (listed == 0); parked = may_sleep }
#endif
            if
            :: may_sleep ->
#ifndef NO_SECOND_LOOK
                find_work();
#endif
#ifdef LATE_MARK
                marked = true;
#endif
#ifdef SEND_LEFT
                if
                :: outbox > 0 -> send_once()
                :: else -> skip
                fi;
                to_cancel = false;
#else
#ifdef CANCEL_LEFT
                do
                :: outbox > 0 -> send_once()
                :: outbox == 0 -> break
                od;
#else
                send_everything();
#endif
#endif
                atomic {
                    may_sleep = !found && !ready;
#ifdef MAIL_LOOK
                    may_sleep = may_sleep && listed == 0;
#else
#ifndef SWALLOWED_WAKE
                    may_sleep = may_sleep && parked;
#endif
#endif
#ifndef NO_WATCH_LOOK
                    may_sleep = may_sleep && watching
#endif
                }
                if
                :: may_sleep ->
                    submit();
                    asleep = true;
                    atomic { !ring_empty -> asleep = false }
                :: else -> skip
                fi;
                atomic { parked = false; found = false; may_sleep = false }
                reap()
            :: else -> skip
            fi;
            marked = false
        fi
    od;
    send_everything();
    atomic { ended = true; last = false; got = 0 }
}

init {
    byte i = 0;
    atomic {
        do
        :: i < LOOPS -> run loop_(); i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < FOREIGNERS -> run foreigner(); i++
        :: else -> break
        od;
        i = 0;
        run closer();
        run kernel();
        run owner()
    }
    loops_done == LOOPS && foreigners_done == FOREIGNERS && closer_done && ended;
    assert(accepted == received && listed == 0 && beside == 0 && outbox == 0)
}

#define work_waits (listed > 0 || beside > 0 || stopping)

ltl no_lost_wake { [] !(work_waits && asleep && ring_empty && on_the_way == 0) }

/* The owner never sleeps with something that only it can send. */
ltl nothing_kept { [] !(asleep && (outbox > 0 || to_cancel || ready)) }

/* With weak fairness: the owner ends, and has received everything that was accepted. */
ltl all_received { <> (ended && accepted == received) }
