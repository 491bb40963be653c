# On a real Slurm cluster of virtual nodes: the job-script templates; what `attune submit` and `attune sweep` make of it; limits of accounts; on request, what takes minutes, and docs/slurm.md word for word.
foreach(script slurm submit sweep limits)
  add_test(NAME cluster.${script} COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/${script}_test.py ${CMAKE_BINARY_DIR})
  set_tests_properties(cluster.${script} PROPERTIES LABELS cluster TIMEOUT 1500 PROCESSORS 2)
endforeach()
foreach(script survival page)
  add_test(NAME cluster.${script} COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/${script}_test.py ${CMAKE_BINARY_DIR})
  set_tests_properties(cluster.${script} PROPERTIES LABELS "cluster;long" TIMEOUT 3600 PROCESSORS 2)
endforeach()
