DROP INDEX gaffer.task_dead;
CREATE INDEX task_dead ON gaffer.task (queue, finished_at) WHERE state IN ('dead', 'lost');
