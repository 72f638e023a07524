module queue

go 1.19
