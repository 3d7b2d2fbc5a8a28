/* The threads, and the loop over the operations. */

#include "engine.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

/* The jobs of one thread that are not begun: it takes them from the front, others from the end. */
typedef struct {
    _Alignas(128) _Atomic uint64_t front_and_end; /* two numbers of 32 bits, so that both change at once */
} Jobs;

#define JOBS(front, end) ((uint64_t)(front) << 32 | (uint64_t)(end))

/* Within a run the threads wait for each other by looking; between runs they sleep. */
struct Pool {
    pthread_t* workers;
    Jobs* jobs;
    int64_t threads;
    Job job;
    const Run* run;
    _Alignas(128) _Atomic int64_t busy;
    _Alignas(128) _Atomic uint64_t round;
    _Atomic int64_t started;
    _Atomic int awake, closing;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
};

#define LOOKS 2000  /* before the processor is offered to others */
#define YIELDS 2000 /* before it sleeps between looks: more threads than processors */

static void pause_a_little(int* looks) {
    if (*looks < LOOKS) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
        ++*looks;
    } else if (*looks < LOOKS + YIELDS) {
        sched_yield();
        ++*looks;
    } else {
        nanosleep(&(struct timespec){.tv_nsec = 50000}, 0);
    }
}

static int64_t taken(Jobs* jobs, int from_front) {
    uint64_t seen = atomic_load_explicit(&jobs->front_and_end, memory_order_relaxed);
    for (;;) {
        uint64_t front = seen >> 32, end = seen & 0xFFFFFFFF;
        if (front >= end) return -1;
        uint64_t left = from_front ? JOBS(front + 1, end) : JOBS(front, end - 1);
        if (atomic_compare_exchange_weak(&jobs->front_and_end, &seen, left))
            return from_front ? front : end - 1;
    }
}

static void work(Pool* pool, int64_t thread) {
    for (int64_t near = 0; near < pool->threads; near++) {
        Jobs* jobs = &pool->jobs[(thread + near) % pool->threads];
        for (int64_t index; (index = taken(jobs, near == 0)) >= 0;) pool->job(pool->run, index, thread);
    }
}

static void* worker(void* given) {
    Pool* pool = given;
    int64_t thread = atomic_fetch_add(&pool->started, 1) + 1;
    uint64_t seen = 0;
    for (;;) {
        pthread_mutex_lock(&pool->mutex);
        while (!atomic_load(&pool->awake) && !atomic_load(&pool->closing))
            pthread_cond_wait(&pool->wake, &pool->mutex);
        pthread_mutex_unlock(&pool->mutex);
        if (atomic_load(&pool->closing)) return 0;
        int looks = 0;
        while (atomic_load_explicit(&pool->awake, memory_order_relaxed)) {
            uint64_t round = atomic_load_explicit(&pool->round, memory_order_acquire);
            if (round == seen) {
                pause_a_little(&looks);
                continue;
            }
            seen = round;
            looks = 0;
            work(pool, thread);
            atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_release);
        }
    }
}

void parallel(Pool* pool, int64_t jobs, Job job, const Run* run) {
    if (pool->threads == 1 || jobs <= 1) {
        for (int64_t index = 0; index < jobs; index++) job(run, index, 0);
        return;
    }
    pool->job = job;
    pool->run = run;
    for (int64_t thread = 0; thread < pool->threads; thread++)
        atomic_store_explicit(&pool->jobs[thread].front_and_end,
                              JOBS(thread * jobs / pool->threads, (thread + 1) * jobs / pool->threads),
                              memory_order_relaxed);
    atomic_store_explicit(&pool->busy, pool->threads - 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&pool->round, 1, memory_order_release);
    work(pool, 0);
    int looks = 0;
    while (atomic_load_explicit(&pool->busy, memory_order_acquire)) pause_a_little(&looks);
}

int64_t threads_of(const Pool* pool) { return pool->threads; }

void engine_close(Pool* pool) {
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->closing, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int64_t index = 0; index < pool->threads - 1; index++) pthread_join(pool->workers[index], 0);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->workers);
    free(pool->jobs);
    free(pool);
}

/* Threads that share the operations of one engine; 0 where they cannot be had. */
Pool* engine_open(int64_t threads) {
    Pool* pool = aligned_alloc(_Alignof(Pool), sizeof *pool);
    if (!pool) return 0;
    memset(pool, 0, sizeof *pool);
    pthread_mutex_init(&pool->mutex, 0);
    pthread_cond_init(&pool->wake, 0);
    pool->threads = 1;
    pool->workers = calloc(threads, sizeof *pool->workers);
    pool->jobs = aligned_alloc(_Alignof(Jobs), threads * sizeof *pool->jobs);
    for (int64_t index = 0; pool->workers && pool->jobs && index < threads - 1; index++) {
        if (pthread_create(&pool->workers[index], 0, worker, pool)) break;
        pool->threads++;
    }
    if (pool->threads == threads) return pool;
    engine_close(pool);
    return 0;
}

static void set_awake(Pool* pool, int awake) {
    if (pool->threads == 1) return;
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->awake, awake);
    if (awake) pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void (*const operations[])(Run*) = {convolution,   winograd,    pool_maximum, pool_average,
                                           response_norm, read_pixels, clear_border};

static void run_all(Run* run, const Operation* program, int64_t count, double* seconds) {
    for (int64_t index = 0; index < count; index++) {
        double started = seconds ? now() : 0;
        run->operation = &program[index];
        operations[program[index].kind](run);
        if (seconds) seconds[index] = now() - started;
    }
}

/* Groups of images that go through the program; `groups` may be one. */
typedef struct {
    Run run;
    const Operation* program;
    int64_t count, arena_bytes, pixel_bytes, logits_at, logits_bytes;
    char* logits;
} Groups;

static Pool alone = {.threads = 1};

static void finish_group(const Groups* groups, const Run* run, int64_t index) {
    memcpy(groups->logits + index * groups->logits_bytes, run->arena + groups->logits_at,
           groups->logits_bytes);
}

/* One group by one thread, in an arena of its own: nothing is exchanged with the others. */
static void one_group(const Run* given, int64_t index, int64_t thread) {
    const Groups* groups = (const Groups*)given;
    Run run = groups->run;
    run.pool = &alone;
    run.arena += thread * groups->arena_bytes;
    run.pixels += index * groups->pixel_bytes;
    run_all(&run, groups->program, groups->count, 0);
    finish_group(groups, &run, index);
}

/* `groups` groups of images: one by all threads together, several by a thread each. An arena has room for
   `arena_bytes` bytes times the threads, or once for one group. A group's logits lie at `logits_at` and are
   copied to `logits`, `logits_bytes` each. `seconds`, where given, has room for the time of each operation of
   one group. */
void engine_run(Pool* pool, const Operation* program, int64_t count, char* arena, int64_t arena_bytes,
                const char* weights, const uint8_t* pixels, int64_t pixel_bytes, char* logits,
                int64_t logits_at, int64_t logits_bytes, int64_t groups, double* seconds) {
    Groups all = {{.arena = arena, .weights = weights, .pixels = pixels, .pool = pool},
                  program,
                  count,
                  arena_bytes,
                  pixel_bytes,
                  logits_at,
                  logits_bytes,
                  logits};
    set_awake(pool, 1);
    if (groups == 1) {
        run_all(&all.run, program, count, seconds);
        finish_group(&all, &all.run, 0);
    } else {
        parallel(pool, groups, one_group, &all.run);
    }
    set_awake(pool, 0);
}
