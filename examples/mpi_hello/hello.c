/* An MPI program that knows nothing of trainmaster.
 *
 *   mpicc examples/mpi_hello/hello.c -o hello
 *   trainmaster submit --nodes 4 --mpi pmix --wait -- ./hello
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    int rank, size, sum;
    const char *node = getenv("SLURMD_NODENAME");

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("rank %d of %d on %s, the sum of all ranks is %d\n", rank, size, node ? node : "?", sum);
    if (argc > 1)
        MPI_Abort(MPI_COMM_WORLD, atoi(argv[1]));
    MPI_Finalize();
    return 0;
}
