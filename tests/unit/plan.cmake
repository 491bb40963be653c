attune_add_test(plan LABEL unit LINK attune_plan SOURCES unit/plan.cpp)
