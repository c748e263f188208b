/*
 * trainmaster's options for sbatch, salloc and srun (SPANK plug-in).
 *
 *   #SBATCH --nodes=5 --tm-spares=1
 *   srun python train.py
 *
 * What is asked for travels with the job: its batch script and job_submit.lua find it as TRAINMASTER_SPARES and so on,
 * prologs as SPANK_TRAINMASTER_SPARES. In a batch script with --tm-spares a `srun PROGRAM` without options of
 * its own becomes `trainmaster run PROGRAM`: srun, as the user, executes that in its own place. Nothing here runs as
 * root but the copying of checked words, and nothing at all happens to a job that does not ask.
 *
 * plugstack.conf:  optional /usr/lib/trainmaster/trainmaster.so command=/opt/trainmaster/bin/trainmaster
 */

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <slurm/slurm.h>
#include <slurm/spank.h>

SPANK_PLUGIN(trainmaster, 1);

/* Set in the batch script of a job whose sruns are to be taken over, and taken away before that is done: what
 * trainmaster itself starts by srun is Slurm's. */
#define TAKES_SRUN "TRAINMASTER_TAKES_SRUN"
#define SPARES_MAX 10000
#define LINE_MAX_LENGTH 512

enum { SPARES, HEALTH, PLACEMENT, MESH, MAINTENANCE, RANK_MAP, OPTIONS };

/* What was asked for, by option; NULL for nothing. */
static char *asked[OPTIONS];
static const char *command = "trainmaster";

/* ---- what is a sensible word ---------------------------------------------------------------------------------- */

static const char *number_within(const char *text, long most)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return "a whole number";
	errno = 0;
	long value = strtol(text, &end, 10);
	return *end || errno || value > most ? "a whole number that fits" : NULL;
}

static const char *no_spares(const char *text)
{
	return number_within(text, SPARES_MAX);
}

static const char *no_health(const char *text)
{
	return strcmp(text, "fast") && strcmp(text, "full") ? "fast or full" : NULL;
}

static const char *no_placement(const char *text)
{
	return strcmp(text, "auto") && strcmp(text, "off") ? "auto or off" : NULL;
}

/* tp=8,pp=4: names of letters, sizes from 1. */
static const char *no_mesh(const char *text)
{
	const char *wanted = "AXIS=SIZE,..., such as tp=8,pp=4";

	for (;;) {
		size_t name = strspn(text, "abcdefghijklmnopqrstuvwxyz_");
		if (!name || text[name] != '=')
			return wanted;
		text += name + 1;
		size_t digits = strspn(text, "0123456789");
		if (!digits || digits > 6 || *text == '0')
			return wanted;
		text += digits;
		if (!*text)
			return NULL;
		if (*text++ != ',')
			return wanted;
	}
}

/* notice:10m,grace:5m,deferrals:2: what maintenance owes the job. */
static const char *no_contract(const char *text)
{
	static const char *const keys[] = {"notice:", "grace:", "deferrals:"};
	const char *wanted = "notice:TIME,grace:TIME,deferrals:N with times such as 90s, 10m or 2h";

	for (;;) {
		size_t key = 0;
		while (key < 3 && strncmp(text, keys[key], strlen(keys[key])))
			key++;
		if (key == 3)
			return wanted;
		text += strlen(keys[key]);
		size_t digits = strspn(text, "0123456789");
		if (!digits || digits > 6)
			return wanted;
		text += digits;
		if (key < 2 && (!*text || !strchr("smhd", *text++)))
			return wanted;
		if (!*text)
			return NULL;
		if (*text++ != ',')
			return wanted;
	}
}

static const char *no_path(const char *text)
{
	return *text == '/' && strlen(text) < PATH_MAX ? NULL : "the full path of a file";
}

/* ---- the options ---------------------------------------------------------------------------------------------- */

static int take(int val, const char *optarg, int remote);

static struct option_of_ours {
	struct spank_option option;
	const char *variable;
	/* What the word should have been; NULL when it is fine. */
	const char *(*wanted)(const char *text);
} options[OPTIONS] = {
	[SPARES] = {{"tm-spares", "N", "trainmaster: N of the job's nodes wait until another dies", 1, SPARES, take},
		    "TRAINMASTER_SPARES", no_spares},
	[HEALTH] = {{"tm-health", "fast|full", "trainmaster: how thoroughly nodes are looked at before the job", 1,
		     HEALTH, take},
		    "TRAINMASTER_HEALTH", no_health},
	[PLACEMENT] = {{"tm-placement", "auto|off", "trainmaster: whether the job is kept to the best pods", 1,
			PLACEMENT, take},
		       "TRAINMASTER_PLACEMENT", no_placement},
	[MESH] = {{"tm-mesh", "AXIS=SIZE,...", "trainmaster: order ranks for this mesh", 1, MESH, take},
		  "TRAINMASTER_MESH", no_mesh},
	[MAINTENANCE] = {{"tm-maintenance", "notice:TIME,...", "trainmaster: what maintenance owes this job", 1,
			  MAINTENANCE, take},
			 "TRAINMASTER_MAINTENANCE", no_contract},
	[RANK_MAP] = {{"tm-rank-map", "FILE", "trainmaster: tasks get RANK by the order of nodes in this file", 1,
		       RANK_MAP, take},
		      "TRAINMASTER_RANK_MAP", no_path},
};

static int take(int val, const char *optarg, int remote)
{
	const char *text = optarg ? optarg : "";
	const char *wanted = options[val].wanted(text);

	if (wanted) {
		/* In slurmstepd the words come from the job's environment, where its owner may write anything. */
		slurm_error("trainmaster: could not take --%s=%.64s: write %s", options[val].option.name, text, wanted);
		return remote ? 0 : -1;
	}
	free(asked[val]);
	asked[val] = strdup(text);
	return asked[val] ? 0 : -1;
}

int slurm_spank_init(spank_t sp, int ac, char **av)
{
	for (int i = 0; i < ac; i++) {
		if (!strncmp(av[i], "command=", 8))
			command = av[i] + 8; /* lives as long as the plug-in does */
		else
			slurm_error("trainmaster: plugstack.conf: %s is unknown; there is command=FILE", av[i]);
	}
	switch (spank_context()) {
	case S_CTX_ALLOCATOR:
	case S_CTX_LOCAL:
	case S_CTX_REMOTE:
		for (int i = 0; i < OPTIONS; i++) {
			spank_err_t failed = spank_option_register(sp, &options[i].option);
			if (failed) {
				slurm_error("trainmaster: --%s could not be made known: %s", options[i].option.name,
					    spank_strerror(failed));
				return -1;
			}
		}
		break;
	default:
		break;
	}
	return 0;
}

int slurm_spank_exit(spank_t sp, int ac, char **av)
{
	(void)sp, (void)ac, (void)av;
	for (int i = 0; i < OPTIONS; i++) {
		free(asked[i]);
		asked[i] = NULL;
	}
	return 0;
}

/* ---- at the client: take along, or take over ------------------------------------------------------------------ */

/* The words of this process's command line, ended by NULL, in `text`; NULL when there is not the room. */
static char **own_words(char *text, size_t size)
{
	FILE *file = fopen("/proc/self/cmdline", "re");
	size_t length = file ? fread(text, 1, size, file) : 0;

	if (file)
		fclose(file);
	if (!length || length == size)
		return NULL;
	size_t count = 0;
	for (size_t i = 0; i < length; i++)
		count += !text[i];
	char **words = calloc(count + 1, sizeof *words);
	for (size_t i = 0, at = 0; words && i < count; i++, at += strlen(text + at) + 1)
		words[i] = text + at;
	return words;
}

/* `srun PROGRAM ARGS` becomes `trainmaster run --spares N -- PROGRAM ARGS`. Returns only when it could not. */
static int become_trainmaster(const char *spares)
{
	long size = sysconf(_SC_ARG_MAX);
	char *text = malloc((size_t)size);
	char **words = text ? own_words(text, (size_t)size) : NULL;

	if (!words || !words[0] || !words[1]) {
		free(words), free(text);
		return 0; /* srun itself says what is wrong with such a line */
	}
	if (words[1][0] == '-') {
		slurm_info("trainmaster: this srun has options of its own and is Slurm's; the run with spares is the "
			   "one that has none");
		free(words), free(text);
		return 0;
	}
	size_t count = 0;
	while (words[count])
		count++;
	const char *mesh = getenv(options[MESH].variable);
	const char **run = calloc(count + 8, sizeof *run);
	if (run) {
		size_t n = 0;
		run[n++] = command, run[n++] = "run", run[n++] = "--spares", run[n++] = spares;
		if (mesh)
			run[n++] = "--mesh", run[n++] = mesh;
		run[n++] = "--";
		memcpy(run + n, words + 1, (count - 1) * sizeof *run);
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		execvp(command, (char *const *)run);
	}
	slurm_error("trainmaster: could not start %s, which --tm-spares=%s needs: %s. Ask whoever installed it to set "
		    "command= in plugstack.conf, or leave --tm-spares out",
		    command, spares, strerror(errno));
	free(run), free(words), free(text);
	return -1;
}

int slurm_spank_init_post_opt(spank_t sp, int ac, char **av)
{
	(void)ac, (void)av;
	spank_context_t where = spank_context();

	if (asked[SPARES] && asked[RANK_MAP]) {
		slurm_error("trainmaster: --tm-rank-map is for jobs that Slurm runs; with --tm-spares ranks are ordered by "
			    "trainmaster: leave one of the two out");
		return -1;
	}
	if (where == S_CTX_ALLOCATOR) {
		for (int i = 0; i < OPTIONS; i++)
			if (asked[i] && spank_job_control_setenv(sp, options[i].variable, asked[i], 1)) {
				slurm_error("trainmaster: --%s could not be given to the job", options[i].option.name);
				return -1;
			}
		/* salloc's shell is a child of this process. sbatch's script gets the same again on its node. */
		for (int i = 0; i < OPTIONS; i++)
			if (asked[i])
				setenv(options[i].variable, asked[i], 1);
	}
	if (where == S_CTX_LOCAL) {
		const char *spares = getenv(options[SPARES].variable);
		if (getenv(TAKES_SRUN) && spares && !no_spares(spares)) {
			unsetenv(TAKES_SRUN);
			return become_trainmaster(spares);
		}
	}
	return 0;
}

/* ---- on the node, as the user: what tasks find in their environment ------------------------------------------- */

static void give(spank_t sp, const char *name, long value)
{
	char text[32];

	snprintf(text, sizeof text, "%ld", value);
	spank_setenv(sp, name, text, 1);
}

/* The rank of `node` by lines "name rank", and how many nodes there are; -1 when it is not among them. */
static long node_rank(FILE *map, const char *node, long *nodes, char *first)
{
	char line[LINE_MAX_LENGTH], name[LINE_MAX_LENGTH];
	long rank, found = -1;

	for (*nodes = 0; fgets(line, sizeof line, map);) {
		if (sscanf(line, "%511s %ld", name, &rank) != 2 || rank < 0)
			continue;
		++*nodes;
		if (!strcmp(name, node))
			found = rank;
		if (!rank)
			strcpy(first, name);
	}
	return found;
}

/* torchrun's variables for one task. A step that covers only some of the map's nodes has no such ranks. */
static int number_task(spank_t sp, const char *path)
{
	char node[LINE_MAX_LENGTH], first[LINE_MAX_LENGTH] = "";
	uint32_t in_step = 0, local_tasks = 0;
	int local = 0;
	long nodes = 0, rank = -1;

	if (spank_getenv(sp, "SLURMD_NODENAME", node, sizeof node) ||
	    spank_get_item(sp, S_JOB_NNODES, &in_step) || spank_get_item(sp, S_TASK_ID, &local) ||
	    spank_get_item(sp, S_JOB_LOCAL_TASK_COUNT, &local_tasks)) {
		slurm_error("trainmaster: --tm-rank-map: Slurm does not say which task this is");
		return -1;
	}
	FILE *map = fopen(path, "re");
	if (map) {
		rank = node_rank(map, node, &nodes, first);
		fclose(map);
	}
	if (!map || rank < 0 || rank >= nodes || nodes != (long)in_step || !*first) {
		slurm_error("trainmaster: --tm-rank-map=%s: %s. It has to have a line `name rank` for each of the step's "
			    "%u nodes, ranks from 0; `trainmaster fabric order` writes one",
			    path, !map ? strerror(errno) : rank < 0 ? "this node is not in it" : "it is of other nodes",
			    in_step);
		return -1;
	}
	give(sp, "RANK", rank * local_tasks + local);
	give(sp, "WORLD_SIZE", nodes * local_tasks);
	give(sp, "LOCAL_RANK", local);
	give(sp, "LOCAL_WORLD_SIZE", local_tasks);
	give(sp, "GROUP_RANK", rank);
	spank_setenv(sp, "MASTER_ADDR", first, 1);
	return 0;
}

/* `sbatch --export=NONE` leaves options at home, but not what was said of them to prologs. */
static void recall(spank_t sp, int option)
{
	char name[128], text[PATH_MAX];

	snprintf(name, sizeof name, "SLURM_SPANK_%s", options[option].variable);
	if (!asked[option] && !spank_getenv(sp, name, text, sizeof text))
		take(option, text, 1);
}

int slurm_spank_task_init(spank_t sp, int ac, char **av)
{
	(void)ac, (void)av;
	uint32_t step = 0;
	char path[PATH_MAX];

	if (spank_get_item(sp, S_JOB_STEPID, &step))
		return 0;
	if (step == SLURM_BATCH_SCRIPT) {
		for (int i = 0; i < OPTIONS; i++)
			recall(sp, i);
		for (int i = 0; i < OPTIONS; i++)
			if (asked[i])
				spank_setenv(sp, options[i].variable, asked[i], 1);
		if (asked[SPARES])
			spank_setenv(sp, TAKES_SRUN, "1", 1);
		return 0;
	}
	if (asked[RANK_MAP])
		return number_task(sp, asked[RANK_MAP]);
	/* Asked for by sbatch, and this is one of its job's steps. */
	if (!spank_getenv(sp, options[RANK_MAP].variable, path, sizeof path) && !no_path(path))
		return number_task(sp, path);
	return 0;
}
