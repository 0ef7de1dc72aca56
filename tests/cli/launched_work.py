"""Work for `launch` in new processes, which import this module and little else."""

from fairseq_bert_kd.teachers.distributed import wait_for_all


def write_after_the_other(folder, rank, world_size):
    if rank == 0:
        (folder / "0").write_text("")
    wait_for_all(world_size)
    if rank == 1 and (folder / "0").exists():
        (folder / "1").write_text(f"after 0 of {world_size}")


def open_what_is_not_there(path, rank, world_size):
    wait_for_all(world_size)  # else one may end before the other has found it
    path.open()


def divide_by_nothing(number, rank, world_size):
    wait_for_all(world_size)
    number / 0
