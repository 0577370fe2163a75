/* messages.pml: is each message shown once, and is its sender told the truth?
 *
 * A model of clause 5.3 of docs/protocol.md, in Promela. Spin goes through every order in which the
 * processes below can take their steps. So what it proves holds however unlucky the network is, and
 * what it finds is a story that can happen. `make model` runs it; docs/testing.md has the results.
 * Read the claims, then Sender, then Service.
 *
 * One peer sends MESSAGES messages to another. The network may delay a line as long as it likes. A
 * connection may break at any moment; then its opener tries again on a new one, and what it sent on
 * the old one may still arrive. The receiver may be killed and started again. A stranger claims the
 * sender's id. No timer has a length: "no reply in time" can happen whenever somebody waits.
 *
 * The claims:
 *   1. No message is shown twice.
 *   2. The sender says "delivered" only of a message that was shown.
 *   3. It says "failed", without "may have arrived", only of a message that is never shown.
 *   4. Every message ends: it is delivered, has failed, or is in doubt. (If one did not, Spin would
 *      report an invalid end state.)
 *
 * Each rule that the claims rest on is a switch. Turn one off, and a claim fails: `make model
 * SWITCHES=1` does so with each, and RULE=HIGHEST shows how, as a story.
 *
 * Left out: the form of the lines, files, and several receivers. Connecting and the introduction are
 * one step. A memory of two numbers stands for that of 32: it is harder to be right with less. The
 * sender keeps its address and is not restarted. A message is shown when the receiver takes it; the
 * program has a queue in between.
 */

#ifndef SAME_NUMBER     /* 5.3: the second try has the number of the first */
#define SAME_NUMBER 1
#endif
#ifndef NEW_CONNECTION  /* 5.3: the second try goes over a new connection */
#define NEW_CONNECTION 1
#endif
#ifndef IN_TURN         /* 5.3: a message is sent after the one before has its reply, or has ended */
#define IN_TURN 1
#endif
#ifndef SILENCE         /* 5.3: a message that was sent and has no reply is in doubt */
#define SILENCE 1
#endif
#ifndef SECOND_NO       /* 5.3: a NO to the second try leaves the first in doubt */
#define SECOND_NO 1
#endif
#ifndef CHECK_ID        /* 5.2: nothing is sent to another peer at the same address */
#define CHECK_ID 1
#endif
#ifndef OK_IS_SHOWN     /* 5.3: OK means that the message will be shown */
#define OK_IS_SHOWN 1
#endif
#ifndef REMEMBER        /* 5.3: a number that the receiver remembers is not shown again */
#define REMEMBER 1
#endif
#ifndef HIGHEST         /* 5.3: it remembers the highest numbers, and a lower one is a repeat, too */
#define HIGHEST 1
#endif
#ifndef BY_ADDRESS      /* 5.3: it remembers them for an id at an address */
#define BY_ADDRESS 1
#endif

#define MESSAGES    3
#define REMEMBERED  2
#define CONNECTIONS (2 * MESSAGES + 1)  /* two tries for each message, and the stranger's */
#define STRANGERS   (CONNECTIONS - 1)
#define NOBODY      255                 /* no connection, no peer, none of the sender's messages */

mtype = { OK, NO, delivered, in_doubt, failed };

/* A MSG on its way: which message it is, and its number. Only the claims look at the first. */
chan request[CONNECTIONS] = [2] of { byte, byte };
chan reply[CONNECTIONS] = [2] of { mtype };
bool is_open[CONNECTIONS];              /* its opener has not given it up */
byte accepted_by[CONNECTIONS] = NOBODY; /* the id of the peer that accepted it */
byte opened = 0;                        /* so many were */

byte receiver = 1;                      /* its id: another one after it was started again */

/* The numbers that it remembers, the lowest first: the sender's, and the stranger's. */
chan memory[2] = [REMEMBERED] of { byte };

/* For the claims. */
byte shown[MESSAGES];                   /* how often */
bool has_failed[MESSAGES];              /* its sender was told so, without a doubt */

/* ---- The sender ------------------------------------------------------------------------------- */

/* Connects and introduces itself; or does not succeed, and `connection` is NOBODY. */
inline open() {
  if
  :: connection = NOBODY;
     printf("sender    cannot connect\n")
  :: opened < STRANGERS ->
     connection = opened;
     opened++;
     accepted_by[connection] = receiver;
     is_open[connection] = true
  fi
}

inline give_up() {
  is_open[connection] = false;
  do
  :: reply[connection] ? _
  :: empty(reply[connection]) -> break
  od;
  connection = NOBODY
}

/* The connection for the next try: the one that was kept, or a new one. If the kept one was closed
   while it was idle, that is noticed before anything is sent; or it is not. */
inline choose_connection() {
  if
  :: connection != NOBODY
  :: connection != NOBODY && tries == 0 -> give_up(); open()
  :: connection == NOBODY -> open()
  fi;
  if
  :: connection != NOBODY && CHECK_ID && accepted_by[connection] != expected ->
     printf("sender    finds another peer there\n");
     give_up()
  :: else
  fi
}

inline send() {
  number = message + (SAME_NUMBER -> 0 : tries * MESSAGES);
  printf("sender    MSG number=%d on connection %d\n", number, connection);
  request[connection] ! message, number;
  number = 0;
  tries++
}

inline settle() {
  printf("sender    message %d: %e\n", message, result);
  if
  :: result == delivered -> assert(shown[message] == 1)     /* claim 2 */
  :: result == failed ->
     assert(shown[message] == 0);                           /* claim 3 */
     has_failed[message] = true
  :: result == in_doubt
  fi
}

/* Sends the messages from `message` to `last`, one after the other. */
proctype Sender(byte message; byte last) {
  byte connection = NOBODY, tries = 0, number = 0;
  byte expected = 1;                    /* the id that the user has picked from the list */
  mtype result = failed;                /* until something has been sent */
try:
  atomic {
    choose_connection();
    if
    :: connection == NOBODY -> goto over
    :: else -> send()
    fi
  }
  if
  :: atomic { reply[connection] ? OK -> result = delivered }
  :: atomic { reply[connection] ? NO -> result = (tries == 2 && SECOND_NO -> in_doubt : failed) }
  :: atomic {                           /* no reply in time, or the connection breaks */
       printf("sender    has no reply on connection %d\n", connection);
       result = (SILENCE -> in_doubt : failed);
       if
       :: NEW_CONNECTION || tries == 2 -> give_up()
       :: else
       fi;
       if
       :: tries < 2 -> goto try
       :: else
       fi
     }
  fi;
over:
  atomic {
    settle();
    message++;
    tries = 0;
    result = failed;
    if
    :: message <= last -> goto try
    :: else
    fi
  }
}

/* ---- The receiver: a thread for each connection ----------------------------------------------- */

inline display() {
  if
  :: message < MESSAGES ->
     printf("receiver  shows message %d\n", message);
     shown[message]++;
     assert(shown[message] == 1);       /* claim 1 */
     assert(!has_failed[message])       /* claim 3 */
  :: else                               /* the stranger's: it is shown under the stranger's address */
  fi
}

/* Was the number there before? From now on it was. */
inline record() {
  is_repeat = REMEMBER && memory[owner] ?? [eval(number)];
  if
  :: is_repeat
  :: !is_repeat && nfull(memory[owner]) -> memory[owner] !! number
  :: !is_repeat && full(memory[owner]) ->
     memory[owner] ? lowest;
     if
     :: REMEMBER && HIGHEST && number < lowest ->
        is_repeat = true;
        memory[owner] !! lowest
     :: else -> memory[owner] !! number
     fi
  fi
}

/* Nobody waits for the reply on a connection that its opener has given up. */
inline answer(word) {
  printf("receiver  %e on connection %d\n", word, connection);
  if
  :: is_open[connection] -> reply[connection] ! word
  :: else
  fi
}

/* It takes a line at any time, and does the rest in one step: a thread that has read a line and then
   stands still is the same as a line that is late. */
proctype Service(byte connection) {
  byte message, number, owner, lowest;
  bool is_repeat;
end:
  do
  :: atomic {
       request[connection] ? message, number;
       owner = (BY_ADDRESS && connection == STRANGERS -> 1 : 0);
       if
       :: accepted_by[connection] != receiver           /* the peer that accepted it was killed */
       :: accepted_by[connection] == receiver -> answer(NO)         /* for whatever reason */
       :: accepted_by[connection] == receiver ->
          record();
          if
          :: is_repeat
          :: !is_repeat -> display()
          :: !OK_IS_SHOWN                               /* it ends before it comes to that */
          fi;
          answer(OK)
       fi;
       message = 0;                     /* what is of no more use must not tell two states apart */
       number = 0;
       owner = 0;
       lowest = 0;
       is_repeat = false
     }
  od
}

/* ---- What may happen meanwhile ---------------------------------------------------------------- */

/* The receiver is killed and started again: it has a new id, and remembers nothing. */
proctype Restart() {
  atomic {
    printf("receiver  is killed and started again\n");
    receiver = 2;
    do
    :: memory[0] ? _
    :: memory[1] ? _
    :: empty(memory[0]) && empty(memory[1]) -> break
    od
  }
}

/* Somebody at another address claims the sender's id, and guesses a number. */
proctype Stranger() {
  byte number;
  if
  :: number = 0
  :: number = MESSAGES - 1
  fi;
  atomic {
    printf("stranger  MSG number=%d, under the sender's id\n", number);
    accepted_by[STRANGERS] = receiver;
    request[STRANGERS] ! NOBODY, number
  }
}

init {
  byte i;
  atomic {
    for (i : 0 .. CONNECTIONS - 1) {
      run Service(i)
    }
    if
    :: IN_TURN -> run Sender(0, MESSAGES - 1)
    :: else ->
       for (i : 0 .. MESSAGES - 1) {
         run Sender(i, i)
       }
    fi;
    run Restart();
    run Stranger()
  }
}
