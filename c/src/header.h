/*
 * virtuallog: a durable, totally ordered log whose ordering engine can be swapped while it runs.
 *
 * Handles. Everything that is opened is a number of 64 bits, 0 for none, that vlog_free gives back. A handle
 * that was freed, that is of another kind or that never was one is answered with VLOG_CLOSED or
 * VLOG_INVALID; freeing it again does nothing. A handle may be used by any thread, and freed while others
 * use it.
 *
 * Ownership. What you give (text, bytes, structs) is copied or looked at during the call and stays yours.
 * What you get lives in your variables; where it points into memory, the struct has a field `owner`, and
 * all its pointers hold until you vlog_free(x.owner). Text ends with a zero byte. The pointer to a result
 * may be NULL where you do not want it.
 *
 * Errors. Each call gives a vlog_status. Where `error` is not NULL, it is filled on failure, and its owner
 * is to be freed; on success it is set to zero.
 *
 * Waiting. `call` says how long a call may take, and whether it waits: NULL waits, for the handle's own
 * deadline. With a queue in it the call returns at once, VLOG_OK says that a completion will come, and
 * vlog_queue_next tells it. Until then the memory that the result goes to, and nothing else, has to stay.
 *
 * Positions strictly increase and may skip; a tail is the first unwritten position; ranges are half open;
 * a trim names the first position that is kept.
 *
 * Fork. In a child of fork the parent's handles are VLOG_CLOSED; the child opens its own.
 *
 * This file is made from the library's source: do not edit it.
 */
