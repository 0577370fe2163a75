/* list.pml: does the list hold exactly the peers that are there?
 *
 * A model of clause 4 of docs/protocol.md, in Promela: how an entry of the list comes and goes. Spin
 * goes through every order in which the processes below can take their steps. `make model` runs it;
 * docs/testing.md has the results. Read messages.pml first, which is easier; then the claims, then
 * hear().
 *
 * Two peers: ann, who runs all the time, and bob, who starts, may leave or be killed, and may start
 * again under a new id. Between them the network loses, delays, doubles and reorders. On bob's host,
 * at another port, there is a stranger who forges: he claims bob's ids. Time has two parts. While
 * there are FAULTS, anything may happen, and a timer may fire at any moment. Then the faults end, at
 * any moment, and there are ROUNDS of heartbeats without a fault.
 *
 * The claims:
 *   1. After the faults, each lists the other: ann lists bob, under the id he has, and nobody else.
 *      If bob has gone, ann lists nobody.
 *   2. If they list each other, and from then on all broadcasts are lost, they still do.
 *   3. If they list each other, and from then on bob does not hear ann, she takes him off her list,
 *      though she hears him.
 *   4. A peer that is listed, and is not being asked, has heard the peer that lists it.
 *   5. No two peers are listed at one address.
 *   6. An id that has said BYE, or was replaced, is never listed again.
 *   7. A forged datagram changes nothing about a peer that was heard in the last 10 s.
 *   8. When all is well, questions end.
 *
 * Each rule that the claims rest on is a switch. Turn one off, and a claim fails: `make model
 * SWITCHES=1` does so with each, and RULE=MOVE shows how, as a story.
 *
 * Left out: the form of datagrams, sweeps, several peers on one host, limits, TCP, the names of
 * users, and forged IP addresses. One question in vain stands for 24, and a set for the network: it
 * holds AT_ONCE kinds of datagrams at a time. Only ann is attacked: bob's list follows the same rules.
 * That an id which was late to be heard of takes the place of its successor for 5 s is no claim here.
 */

#ifndef ANSWER        /* 4.2: a HELLO is answered by a HERE */
#define ANSWER 1
#endif
#ifndef HEARTBEAT     /* 4.2: every 5 s a peer says HERE */
#define HEARTBEAT 1
#endif
#ifndef BYE_ADDRESS   /* 4.2: a BYE counts from the address that the list has, and from no other */
#define BYE_ADDRESS 1
#endif
#ifndef AFTER_BYE     /* 4.2: for 15 s after a BYE nothing is listed under that id */
#define AFTER_BYE 1
#endif
#ifndef HEARSAY       /* 4.3: a HERE lists nobody if it comes from another port than it names */
#define HEARSAY 1
#endif
#ifndef TO            /* 4.4: only a HERE with a `to` lists somebody */
#define TO 1
#endif
#ifndef OUR_ID        /* 4.4: and that must be our id */
#define OUR_ID 1
#endif
#ifndef ASK_NEW       /* 4.4, 1: a peer that is heard for the first time is asked */
#define ASK_NEW 1
#endif
#ifndef ASK_BACK      /* 4.4, 2: a listed peer that asks is asked */
#define ASK_BACK 1
#endif
#ifndef RECENT        /* 4.4, 2: but not if it was asked, or has answered, in the last 5 s */
#define RECENT 1
#endif
#ifndef OVERDUE       /* 4.4, 3: a peer that is overdue is asked */
#define OVERDUE 1
#endif
#ifndef REPEAT        /* 4.4, 4: a question is repeated until it is answered */
#define REPEAT 1
#endif
#ifndef IN_VAIN       /* 4.4, 4: a peer that does not answer, and is heard, is taken off the list */
#define IN_VAIN 1
#endif
#ifndef GONE          /* 4.4, 5: a peer that is silent for 15 s is forgotten */
#define GONE 1
#endif
#ifndef MOVE          /* 4.4: another address may have an id only after 10 s of silence */
#define MOVE 1
#endif
#ifndef FREE          /* 4.4: and only if nobody is listed at that address */
#define FREE 1
#endif
#ifndef REPLACE       /* 4.4: who is listed at an address takes the place of who was there */
#define REPLACE 1
#endif
#ifndef AFTER_REPLACE /* 4.4: for 5 s after that nothing is listed under the former id */
#define AFTER_REPLACE 1
#endif

#define ANN       0             /* ids: ann has one, bob has two, one after the other */
#define BOB       1
#define BOB_AGAIN 2
#define IDS       3
#define OTHER(id) (3 - id)      /* bob's other id */

#define QUESTIONS 1             /* stands for 24 */
#define ROUNDS    5             /* of heartbeats, until the lists must be right */
#define STORM     24            /* datagrams in a round: more would be a storm */

/* ---- Who runs, and what is in the air ---------------------------------------------------------- */

byte bob = BOB;                 /* his id */
bool bob_runs = false;

/* A datagram is its verb, the id of its sender, and its `to`: one without has the sender's id there.
   What is in the air is a set: so order and number do not count. */
#define HELLO     0
#define HERE      1
#define BYE       2
#define SLOT(verb, id, to) (verb * 9 + id * 3 + to)
bool air[27];
byte flying = 0;                /* so many are in the air */
byte said = 0;                  /* so many were sent in this round */

#define AT_ONCE   2             /* so many datagrams may be in the air while there are faults */

mtype = { faults, peace, no_broadcast, deaf };
mtype time = faults;

inline story(what, whose, whom) {
  if
  :: what == HELLO -> printf("%d: HELLO\n", whose)
  :: what == HERE && whom == whose -> printf("%d: HERE\n", whose)
  :: what == HERE && whom != whose -> printf("%d: HERE to=%d\n", whose, whom)
  :: what == BYE -> printf("%d: BYE\n", whose)
  fi
}

inline send(what, whose, whom) {
  if
  :: time == faults && flying == AT_ONCE               /* lost */
  :: else ->
     if
     :: air[SLOT(what, whose, whom)]
     :: else ->
        air[SLOT(what, whose, whom)] = true;
        flying++
     fi;
     if
     :: time != faults -> said++; assert(said < STORM)              /* claim 8 */
     :: else
     fi
  fi
}

/* ---- The lists --------------------------------------------------------------------------------- */

/* The entry of each id, in the list of the other side: ann's id in bob's, bob's two in ann's. */
mtype = { unknown, heard, listed, left };
mtype state[IDS] = unknown;
bool at_stranger[IDS];          /* its address: the stranger's, or that of the peer itself */
byte questions[IDS];            /* open ones */
bool is_fresh[IDS];             /* heard in the last 10 s */

/* In the rounds after the faults. */
byte silent[IDS];               /* for so many rounds */
bool was_heard[IDS];            /* in this round */
bool was_asked[IDS];            /* in this round; or it has answered */

/* For the claims. */
bool has_heard[IDS];            /* bob's ids: bob has heard ann */
bool ann_has_heard[IDS];        /* bob's ids: ann has heard bob */
bool is_over[IDS];              /* ann knows that this id has left, or was replaced */

#define IS_ENTRY(id)  (state[id] == heard || state[id] == listed)
byte lister[IDS];               /* the id of the peer whose list an id would be in */
#define HEARS(id)     (id == ANN -> ann_has_heard[bob] : has_heard[id])

inline ask(id) {
  if
  :: questions[id] < QUESTIONS -> questions[id]++
  :: else
  fi;
  was_asked[id] = (time != faults);
  if
  :: at_stranger[id]                                   /* who answers as he likes */
  :: else -> send(HELLO, lister[id], lister[id])
  fi
}

inline forget(id) {
  state[id] = unknown;
  at_stranger[id] = false;
  questions[id] = 0;
  is_fresh[id] = false;
  silent[id] = 0
}

/* Nothing is listed under this id for a while, or the rule is off. */
inline retire(id, is_remembered) {
  if
  :: time == faults && id != ANN && !at_stranger[id] && !(bob_runs && id == bob) -> is_over[id] = true
  :: else
  fi;
  forget(id);
  if
  :: is_remembered -> state[id] = left
  :: else
  fi
}

/* Clause 4.4: it has shown that it hears us. */
inline confirm(id) {
  if
  :: state[id] == heard ->
     if
     :: REPLACE && id != ANN && IS_ENTRY(OTHER(id)) && at_stranger[OTHER(id)] == at_stranger[id] ->
        retire(OTHER(id), AFTER_REPLACE)
     :: else
     fi;
     state[id] = listed;
     printf("  %d lists %d\n", lister[id], id);
     assert(at_stranger[id] || !is_over[id])                        /* claim 6 */
  :: else
  fi;
  questions[id] = 0;
  was_asked[id] = (time != faults)
}

/* Whether the entry of this id may have that address. Only bob's ids can be two, or the stranger's. */
#define MAY_MOVE(id, to_stranger) \
  ((!MOVE || !is_fresh[id]) && \
   (!FREE || id == ANN || state[OTHER(id)] != listed || at_stranger[OTHER(id)] != to_stranger))

#define IS_FOR_US(verb, id, to) (verb == HERE && (to == lister[id] || (!OUR_ID && to != id) || !TO))

inline update(id, is_strangers) {
  at_stranger[id] = is_strangers;
  is_fresh[id] = true;
  was_heard[id] = (time != faults)
}

/* Clause 4.4: from the port that it names, at the address of the stranger or of the peer itself. */
inline hear_of(verb, id, to, is_strangers) {
  if
  :: state[id] == left
  :: IS_ENTRY(id) && at_stranger[id] != is_strangers && !MAY_MOVE(id, is_strangers)
  :: IS_ENTRY(id) && at_stranger[id] == is_strangers ->
     update(id, is_strangers);
     if
     :: IS_FOR_US(verb, id, to) -> confirm(id)
     :: verb == HELLO && ASK_BACK && (!RECENT || !was_asked[id]) -> ask(id)
     :: else
     fi
  :: else ->                                           /* new, or at a new address */
     if
     :: state[id] == unknown -> state[id] = heard
     :: else
     fi;
     questions[id] = 0;
     update(id, is_strangers);
     if
     :: IS_FOR_US(verb, id, to) -> confirm(id)
     :: !IS_FOR_US(verb, id, to) && ASK_NEW -> ask(id)
     :: else
     fi
  fi
}

/* Clauses 4.2 and 4.3: what comes from the peer itself, or from the stranger. */
inline hear(verb, id, to, is_strangers, is_from_its_port) {
  if
  :: verb == HELLO && ANSWER && !is_strangers -> send(HERE, lister[id], id)
  :: else
  fi;
  if
  :: HEARSAY && !is_from_its_port ->                   /* ask at the door that it names */
     if
     :: verb == HERE && (!IS_ENTRY(id) || at_stranger[id]) -> send(HELLO, lister[id], lister[id])
     :: else
     fi
  :: verb == BYE && (HEARSAY -> is_from_its_port : true) ->
     if
     :: IS_ENTRY(id) && (at_stranger[id] == (is_strangers && is_from_its_port) || !BYE_ADDRESS) ->
        printf("  %d takes %d off\n", lister[id], id);
        retire(id, AFTER_BYE)
     :: else
     fi
  :: else -> hear_of(verb, id, to, (is_strangers && is_from_its_port))
  fi
}

#define SAME_ADDRESS (at_stranger[BOB] == at_stranger[BOB_AGAIN])
#define SHOULD_NOT_BE_LISTED(id) \
  (state[id] == listed && questions[id] == 0 && !at_stranger[id] && !HEARS(id))

inline check_lists() {
  assert(!SHOULD_NOT_BE_LISTED(ANN));                               /* claim 4 */
  assert(!SHOULD_NOT_BE_LISTED(BOB));                               /* claim 4 */
  assert(!SHOULD_NOT_BE_LISTED(BOB_AGAIN));                         /* claim 4 */
  assert(!(state[BOB] == listed && state[BOB_AGAIN] == listed && SAME_ADDRESS))  /* claim 5 */
}

/* ---- The network ------------------------------------------------------------------------------- */

/* Carries one kind of datagram. */
proctype Courier(byte verb; byte id; byte to) {
end:
  do
  :: atomic {
       air[SLOT(verb, id, to)] ->
       if
       :: time == faults                               /* it is doubled */
       :: true -> air[SLOT(verb, id, to)] = false; flying--
       fi;
       if
       :: time == faults -> goto end                   /* it is lost, or late */
       :: time == deaf && id == ANN -> goto end
       :: time == no_broadcast && verb == HERE && to == id -> goto end
       :: id == ANN && !bob_runs -> goto end
       :: (time != deaf || id != ANN) && !(time == no_broadcast && verb == HERE && to == id) &&
          (id != ANN || bob_runs) ->
          story(verb, id, to);
          if
          :: time == faults && id == ANN -> has_heard[bob] = true
          :: time == faults && id != ANN -> ann_has_heard[id] = true
          :: else
          fi;
          hear(verb, id, to, false, true);
          if
          :: time == faults -> check_lists()
          :: else
          fi
       fi
     }
  od
}

/* ---- What may happen while there are faults ------------------------------------------------------ */

/* Of an entry: its timers fire whenever they like, but for one: 15 s, for which nothing is listed
   after a BYE, are longer than any datagram is on its way. */
proctype Timers(byte id) {
end:
  do
  :: atomic { time == faults && IS_ENTRY(id) && is_fresh[id] -> is_fresh[id] = false }
  :: atomic { time == faults && IS_ENTRY(id) && !is_fresh[id] -> forget(id) }
  :: atomic {
       time == faults && IS_ENTRY(id) && (REPEAT || questions[id] == 0) ->
       if
       :: IN_VAIN && state[id] == listed && questions[id] == QUESTIONS -> state[id] = heard
       :: else -> ask(id)
       fi
     }
  :: atomic {
       time == faults && state[id] == left &&
       !air[SLOT(HELLO, id, id)] && !air[SLOT(HERE, id, id)] && !air[SLOT(HERE, id, ANN)] ->
       forget(id)
     }
  od
}

proctype Heart() {
end:
  do
  :: atomic { time == faults && HEARTBEAT -> send(HERE, ANN, ANN) }
  :: atomic { time == faults && HEARTBEAT && bob_runs -> send(HERE, bob, bob) }
  od
}

inline start_bob(id) {
  atomic {
    time == faults ->
    bob = id;
    bob_runs = true;
    lister[ANN] = id;
    send(HELLO, id, id);
    printf("  bob starts, as %d\n", id)
  }
}

inline end_bob() {
  atomic {
    time == faults ->
    if
    :: send(BYE, bob, bob)
    :: skip                                            /* he is killed */
    fi;
    bob_runs = false;
    forget(ANN);
    printf("  bob ends\n")
  }
}

proctype Bob() {
end:
  start_bob(BOB);
end_1:
  end_bob();
end_2:
  start_bob(BOB_AGAIN);
end_3:
  end_bob();
end_4:
  false
}

/* Says of himself what he likes, from his own port: that he is bob. Or that bob's port is at fault. */
proctype Stranger() {
  byte verb, id, to;
  bool is_from_its_port;
  bool was_living;
  mtype before;
end:
  do
  :: atomic {
       time == faults && bob_runs ->
       if
       :: verb = HELLO
       :: verb = HERE
       :: verb = BYE
       fi;
       if
       :: id = BOB
       :: bob == BOB_AGAIN -> id = BOB_AGAIN
       fi;
       if
       :: to = ANN
       :: to = id
       fi;
       if
       :: is_from_its_port = true
       :: is_from_its_port = false
       fi;
       was_living = IS_ENTRY(id) && !at_stranger[id] && is_fresh[id];
       before = state[id];
       if
       :: is_from_its_port -> printf("the stranger, from the port that he names, as ")
       :: else -> printf("the stranger, from another port than he names, as ")
       fi;
       story(verb, id, to);
       hear(verb, id, to, true, is_from_its_port);
       assert(!was_living || (state[id] == before && !at_stranger[id]));          /* claim 7 */
       check_lists();
       verb = 0; id = 0; to = 0; is_from_its_port = false; was_living = false; before = 0
     }
  od
}

/* ---- After the faults ---------------------------------------------------------------------------- */

/* A round of 5 s is over: the timers of an entry. */
inline pass_time(id) {
  if
  :: was_heard[id] -> silent[id] = 0
  :: !was_heard[id] && silent[id] < 3 -> silent[id]++
  :: else
  fi;
  was_asked[id] = false;
  if
  :: state[id] == left && silent[id] >= 3 -> forget(id)
  :: IS_ENTRY(id) && silent[id] >= 3 && GONE -> forget(id)
  :: IS_ENTRY(id) && !(silent[id] >= 3 && GONE) ->
     is_fresh[id] = (silent[id] < 2);
     if
     :: IN_VAIN && state[id] == listed && questions[id] == QUESTIONS && was_heard[id] ->
        state[id] = heard
     :: else
     fi;
     if
     :: questions[id] > 0 && REPEAT -> ask(id)
     :: questions[id] == 0 && silent[id] >= 1 && OVERDUE -> ask(id)
     :: else
     fi
  :: else
  fi;
  was_heard[id] = false
}

#define LISTS_RIGHT (state[ANN] == listed && state[bob] == listed && !at_stranger[bob])

proctype Calm() {
  byte round = 0;
  atomic {
    if
    :: time = peace
    :: LISTS_RIGHT && bob_runs -> time = no_broadcast
    :: LISTS_RIGHT && bob_runs -> time = deaf
    fi;
    has_heard[BOB] = false; has_heard[BOB_AGAIN] = false;
    ann_has_heard[BOB] = false; ann_has_heard[BOB_AGAIN] = false;
    is_over[BOB] = false; is_over[BOB_AGAIN] = false;
    printf("  -- the faults end: %e\n", time)
  }
  do
  :: flying == 0 && round < ROUNDS ->
     atomic {
       said = 0;
       if
       :: HEARTBEAT -> send(HERE, ANN, ANN)
       :: else
       fi;
       if
       :: HEARTBEAT && bob_runs -> send(HERE, bob, bob)
       :: else
       fi
     }
     atomic {
       flying == 0 ->
       pass_time(ANN);
       pass_time(BOB);
       pass_time(BOB_AGAIN);
       round++
     }
  :: flying == 0 && round == ROUNDS -> break
  od;
  atomic {
    if
    :: time == deaf -> assert(state[bob] != listed)                 /* claim 3 */
    :: time == peace && bob_runs -> assert(LISTS_RIGHT)             /* claim 1 */
    :: time == no_broadcast -> assert(LISTS_RIGHT)                  /* claim 2 */
    :: time == peace && !bob_runs -> assert(state[bob] != listed)    /* claim 1 */
    fi;
    assert(state[OTHER(bob)] != listed)                             /* claim 1 */
  }
}

init {
  atomic {
    run Courier(HELLO, ANN, ANN);
    run Courier(HELLO, BOB, BOB);
    run Courier(HELLO, BOB_AGAIN, BOB_AGAIN);
    run Courier(HERE, ANN, ANN);
    run Courier(HERE, ANN, BOB);
    run Courier(HERE, ANN, BOB_AGAIN);
    run Courier(HERE, BOB, BOB);
    run Courier(HERE, BOB, ANN);
    run Courier(HERE, BOB_AGAIN, BOB_AGAIN);
    run Courier(HERE, BOB_AGAIN, ANN);
    run Courier(BYE, BOB, BOB);
    run Courier(BYE, BOB_AGAIN, BOB_AGAIN);
    run Timers(ANN);
    run Timers(BOB);
    run Timers(BOB_AGAIN);
    run Heart();
    run Bob();
    run Stranger();
    run Calm()
  }
}
