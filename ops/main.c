/* qfc-worker: takes QFieldCloud's jobs from PostgreSQL and runs each in a QGIS container. */
#include "qfc/cli.h"

int main(int argc, char **argv)
{
    return qfc_cli(argc, argv);
}
